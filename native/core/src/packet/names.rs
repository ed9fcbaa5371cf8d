//! Names of methods and fields: those that `erlang:decode_packet/3` knows, and those that are frequent.
//!
//! Knowing a name, or a whole field, saves making terms of it: Erlang has them ready (`megaphone_packet.erl`). It changes
//! no result. The idea is that of HPACK's static table (RFC 7541, appendix A).

/// The methods that are atoms in Erlang.
pub const METHODS: [&str; 7] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE"];

/// The field names that are atoms in Erlang; the index in a header packet is the place here, from 1.
pub const FIELDS: [&str; 52] = [
    "Cache-Control",
    "Connection",
    "Date",
    "Pragma",
    "Transfer-Encoding",
    "Upgrade",
    "Via",
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "From",
    "Host",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Max-Forwards",
    "Proxy-Authorization",
    "Range",
    "Referer",
    "User-Agent",
    "Age",
    "Location",
    "Proxy-Authenticate",
    "Public",
    "Retry-After",
    "Server",
    "Vary",
    "Warning",
    "Www-Authenticate",
    "Allow",
    "Content-Base",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Location",
    "Content-Md5",
    "Content-Range",
    "Content-Type",
    "Etag",
    "Expires",
    "Last-Modified",
    "Accept-Ranges",
    "Set-Cookie",
    "Set-Cookie2",
    "X-Forwarded-For",
    "Cookie",
    "Keep-Alive",
    "Proxy-Connection",
];

/// Further names that clients and proxies send often, as they mostly write them. Erlang has them as strings; they are
/// known here only to save making those.
pub const OTHER_FIELDS: [&str; 20] = [
    "Origin",
    "DNT",
    "Priority",
    "Upgrade-Insecure-Requests",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "Sec-GPC",
    "X-Requested-With",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Forwarded",
];

/// Whole fields that browsers, XMPP clients and proxies send as they are, in the order of their names above.
pub const USUAL_FIELDS: [(&str, &str); 44] = [
    ("Cache-Control", "no-cache"),
    ("Cache-Control", "max-age=0"),
    ("Connection", "keep-alive"),
    ("Connection", "Keep-Alive"),
    ("Connection", "close"),
    ("Connection", "Upgrade"),
    ("Connection", "keep-alive, Upgrade"),
    ("Pragma", "no-cache"),
    ("Upgrade", "websocket"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Accept-Encoding", "gzip"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Content-Length", "0"),
    ("Content-Type", "text/xml; charset=utf-8"),
    ("Content-Type", "text/plain;charset=UTF-8"),
    ("Content-Type", "application/json"),
    ("DNT", "1"),
    ("Priority", "u=0, i"),
    ("Priority", "u=1, i"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Dest", "websocket"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Mode", "websocket"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Site", "same-site"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-User", "?1"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ("Sec-WebSocket-Protocol", "xmpp"),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-mobile", "?1"),
    ("Sec-GPC", "1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Proto", "http"),
];

/// The place (from 0) of a name in [`FIELDS`], whatever its case.
#[must_use]
pub fn field_index(name: &[u8]) -> Option<usize> {
    known_field(name).map(|(place, _)| usize::from(place)).filter(|place| *place < FIELDS.len())
}

/// The place (from 0) of a name in [`FIELDS`], followed by [`OTHER_FIELDS`], and whether it is written exactly as there.
/// Of the others only a name that is.
#[inline]
pub(super) fn known_field(name: &[u8]) -> Option<(u8, bool)> {
    let place = BY_HASH[field_hash(name)?].checked_sub(1)?;
    if NAMES[usize::from(place)] == Words::of(name) {
        return Some((place, true));
    }
    let known = FIELDS.get(usize::from(place))?;
    known.as_bytes().eq_ignore_ascii_case(name).then_some((place, false))
}

/// [`FIELDS`], followed by [`OTHER_FIELDS`].
static NAMES: [Words; KNOWN] = {
    let mut names = [Words::of(b"   "); KNOWN];
    let mut place = 0;
    while place < KNOWN {
        names[place] = Words::of(known_name(place));
        place += 1;
    }
    names
};

const KNOWN: usize = FIELDS.len() + OTHER_FIELDS.len();

const fn known_name(place: usize) -> &'static [u8] {
    if place < FIELDS.len() {
        FIELDS[place].as_bytes()
    } else {
        OTHER_FIELDS[place - FIELDS.len()].as_bytes()
    }
}

/// A string of 3 to 32 bytes in words of the machine, which overlap as its length needs it: comparing them takes neither
/// a call nor a look elsewhere, and comparing is most of looking a name up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    len: usize,
    outer: [u64; 2],
    inner: [u64; 2],
}

impl Words {
    #[inline]
    const fn of(text: &[u8]) -> Self {
        let len = text.len();
        let inner = if len > 16 { [word(text, 8), word(text, len - 16)] } else { [0; 2] };
        let outer = match len {
            8.. => [word(text, 0), word(text, len - 8)],
            4.. => [half(text, 0), half(text, len - 4)],
            _ => [u32::from_le_bytes([text[0], text[1], text[2], 0]) as u64, 0],
        };
        Self { len, outer, inner }
    }
}

#[inline]
const fn word(text: &[u8], at: usize) -> u64 {
    match text.split_at(at).1.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

#[inline]
const fn half(text: &[u8], at: usize) -> u64 {
    match text.split_at(at).1.first_chunk() {
        Some(bytes) => u32::from_le_bytes(*bytes) as u64,
        None => 0,
    }
}

/// The place (from 0) of a name in [`METHODS`].
#[must_use]
pub fn method_index(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"OPTIONS" => 0,
        b"GET" => 1,
        b"HEAD" => 2,
        b"POST" => 3,
        b"PUT" => 4,
        b"DELETE" => 5,
        b"TRACE" => 6,
        _ => return None,
    })
}

/// The place (from 0) in [`USUAL_FIELDS`] of a field with a known name, which is at `place`, and a value.
#[inline]
pub(super) fn usual_field(place: u8, value: &[u8]) -> Option<u8> {
    let (from, to) = USUAL_OF[usize::from(place)];
    (from..to).find(|at| USUAL_FIELDS[usize::from(*at)].1.as_bytes() == value)
}

/// For each known name the places in [`USUAL_FIELDS`] with that name.
static USUAL_OF: [(u8, u8); KNOWN] = usual_of();

const fn usual_of() -> [(u8, u8); KNOWN] {
    let mut places = [(0, 0); KNOWN];
    let (mut place, mut at) = (0, 0);
    while place < places.len() {
        let from = at;
        while at < USUAL_FIELDS.len() && equal(USUAL_FIELDS[at].0.as_bytes(), known_name(place)) {
            at += 1;
        }
        places[place] = (from as u8, at as u8); // some 50 fields
        place += 1;
    }
    assert!(at == USUAL_FIELDS.len(), "a usual field has an unknown name, or is not in order");
    places
}

/// Equality, at compile time.
const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    a.len() == b.len() && at == a.len()
}

/// Tells all known names apart, whatever their case: by the length and three letters. `None` for a name that is shorter
/// or longer than any of them.
const fn field_hash(name: &[u8]) -> Option<usize> {
    if name.len() < 3 || name.len() > 32 {
        return None;
    }
    // Lower case, for what is a letter; other bytes may become anything, since the whole name is compared then.
    let early = (name[name.len() / 3] | 0x20) as usize;
    let middle = (name[name.len() / 2] | 0x20) as usize;
    let late = (name[name.len() - 2] | 0x20) as usize;
    Some((213 * name.len() + 145 * early + 71 * middle + 102 * late) % HASHES)
}

const HASHES: usize = 512;

/// The place (from 1) of the known name with a hash; 0 for none.
static BY_HASH: [u8; HASHES] = by_hash();

const fn by_hash() -> [u8; HASHES] {
    let mut places = [0_u8; HASHES];
    let mut place = 0;
    while place < KNOWN {
        let Some(hash) = field_hash(known_name(place)) else { panic!("a name is too short or too long") };
        assert!(places[hash] == 0, "two names have the same hash: choose other factors");
        place += 1;
        places[hash] = place as u8; // 72 names
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_are_and_nothing_else_is() {
        for (place, name) in METHODS.iter().enumerate() {
            assert_eq!(method_index(name.as_bytes()), Some(place));
        }
        assert_eq!(method_index(b"get"), None);
        for place in 0..KNOWN {
            let name = known_name(place);
            assert_eq!(known_field(name), Some((place as u8, true)));
            let other_case: Vec<u8> = name
                .iter()
                .map(|byte| if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte })
                .collect();
            assert_eq!(field_index(name), Some(place).filter(|place| *place < FIELDS.len()));
            assert_eq!(known_field(&other_case), field_index(name).map(|place| (place as u8, false)));
            for at in 0..name.len() {
                let mut other = name.to_vec();
                other[at] = b'_';
                assert_eq!(known_field(&other), None, "{}", other.escape_ascii());
            }
            assert_eq!(known_field(&name[1..]), None);
            assert_eq!(known_field(&[name, b"s"].concat()), None);
        }
    }

    #[test]
    fn usual_fields_are_found_and_nothing_else_is() {
        for (at, (name, value)) in USUAL_FIELDS.into_iter().enumerate() {
            let (place, _) = known_field(name.as_bytes()).expect("a known name");
            assert_eq!(usual_field(place, value.as_bytes()), Some(at as u8));
            for other in
                [value.to_uppercase() + "_", format!("{value} "), format!("_{}", &value[1..]), String::new()]
            {
                assert_eq!(usual_field(place, other.as_bytes()), None, "{name}: {other}");
            }
        }
        let (host, _) = known_field(b"Host").expect("a known name");
        assert_eq!(usual_field(host, b"keep-alive"), None);
    }
}
