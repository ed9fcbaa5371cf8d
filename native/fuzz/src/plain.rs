//! Readers as simple as can be, of what is all there: what the core does piece by piece is compared with them.

use std::net::{IpAddr, SocketAddr};

use megaphone_core::http::chunked::ChunkError;
use megaphone_core::limits::{MAX_CHUNK_OVERHEAD, MAX_HEADERS, PROXY_V1_LINE, PROXY_V2_LENGTH};
use megaphone_core::peer::proxy::Source;

/// The body of a chunked request at the start of `input`, at most `limit` bytes, and where it ends; `None` if it is
/// not all there.
pub fn chunked(input: &[u8], limit: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    let (mut body, mut at, mut overhead) = (Vec::new(), 0, 0);
    loop {
        let digits = input[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 16 {
            return Err(ChunkError::Malformed);
        }
        match input.get(at + digits) {
            None => return Ok(None),
            Some(b'\r' | b';') if digits > 0 => {}
            Some(_) => return Err(ChunkError::Malformed),
        }
        let text = str::from_utf8(&input[at..at + digits]).expect("digits");
        let size = u64::from_str_radix(text, 16).expect("at most 16 digits");
        let extension = usize::from(input[at + digits] == b';');
        let Some(next) = line(input, at + digits + extension, &mut overhead)? else { return Ok(None) };
        at = next;
        if size == 0 {
            break;
        }
        if size > (limit - body.len()) as u64 {
            return Err(ChunkError::TooLarge);
        }
        let data = &input[at..];
        let data = &data[..data.len().min(size as usize)];
        body.extend_from_slice(data);
        at += data.len();
        match &input[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(ChunkError::Malformed),
        }
    }
    loop {
        let Some(next) = line(input, at, &mut overhead)? else { return Ok(None) };
        if next == at + 2 {
            return Ok(Some((body, next)));
        }
        at = next;
    }
}

/// Where the line from `at` on ends, its end included: text without control characters, of which nothing is kept.
fn line(input: &[u8], at: usize, overhead: &mut usize) -> Result<Option<usize>, ChunkError> {
    for (place, byte) in input.iter().enumerate().skip(at) {
        if *byte == b'\r' {
            return match input.get(place + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(place + 2)),
                Some(_) => Err(ChunkError::Malformed),
            };
        }
        if byte.is_ascii_control() && *byte != b'\t' {
            return Err(ChunkError::Malformed);
        }
        *overhead += 1;
        if *overhead > MAX_CHUNK_OVERHEAD {
            return Err(ChunkError::Overhead);
        }
    }
    Ok(None)
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a request head that was accepted asks for, and what the node has to get for it.
#[derive(Debug, Default)]
pub struct Request {
    /// The method is HEAD.
    pub is_head: bool,
    /// No other request follows.
    pub last: bool,
    /// It asks to become a WebSocket.
    pub upgrade: bool,
    /// It waits for `100 Continue`.
    pub expects: bool,
    /// How its body is delimited.
    pub framing: Framing,
    /// Its method has a body even if that is empty.
    has_body: bool,
    /// The head for the node but for a length and the empty line.
    start: Vec<u8>,
}

impl Request {
    /// Reads a whole head that is known to be valid, line by line as protocol.md has it.
    pub fn read(head: &[u8]) -> Self {
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.trim_start_matches("\r\n").split("\r\n").take_while(|line| !line.is_empty());
        let words: Vec<&str> = lines.next().expect("a request line").split(' ').collect();
        let [method, target, version] = words[..] else { panic!("{words:?}") };
        let fields: Vec<(&str, &str)> = lines
            .map(|line| line.split_once(':').expect("a colon"))
            .map(|(name, value)| (name, value.trim_matches([' ', '\t'])))
            .collect();
        let all = |name: &str| -> Vec<&str> {
            fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).collect()
        };
        let list = |name: &str| -> Vec<String> {
            let all = all(name).join(",").to_ascii_lowercase();
            all.split(',').map(|item| item.trim_matches([' ', '\t']).to_owned()).collect()
        };
        let has = |name: &str, token: &str| list(name).iter().any(|item| item == token);
        let framing = match (all("content-length").first(), all("transfer-encoding").first()) {
            (None, None) => Framing::None,
            (Some(length), None) => Framing::Length(length.parse().expect("a length")),
            (None, Some(_)) => Framing::Chunked,
            both => panic!("{both:?}"),
        };
        let new = version == "HTTP/1.1";
        let mut request = Self {
            is_head: method == "HEAD",
            last: !new || has("connection", "close"),
            upgrade: new
                && method == "GET"
                && matches!(framing, Framing::None | Framing::Length(0))
                && has("connection", "upgrade")
                && has("upgrade", "websocket"),
            expects: new && !all("expect").is_empty(),
            framing,
            has_body: ["POST", "PUT", "PATCH"].contains(&method),
            start: Vec::new(),
        };
        let (host, path) = origin(target);
        let host = host.or(all("host").first().copied()).unwrap_or_default();
        let mut anew = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        let named = list("connection");
        for (name, value) in &fields {
            if is_passed_on(&name.to_ascii_lowercase(), &named) {
                anew += &format!("{name}: {value}\r\n");
            }
        }
        if request.upgrade {
            anew += "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        } else if request.last {
            anew += "Connection: close\r\n";
        }
        // Each of these characters was one byte.
        request.start = anew.chars().map(|char| char as u8).collect();
        request
    }

    /// The head for the node, for a body that is `chunked` bytes long if it came in chunks.
    pub fn head(&self, chunked: usize) -> Vec<u8> {
        let length = match self.framing {
            Framing::Chunked => Some(chunked as u64),
            Framing::Length(length) => Some(length),
            Framing::None => self.has_body.then_some(0),
        };
        let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        [&self.start[..], length.as_bytes(), b"\r\n"].concat()
    }

    /// Most bytes of [`Request::head`], as far as can be told when the head has come.
    pub fn most(&self) -> usize {
        if self.framing == Framing::Chunked { self.head(usize::MAX).len() } else { self.head(0).len() }
    }
}

/// The host that a target names if it is absolute, and the target without it.
fn origin(target: &str) -> (Option<&str>, String) {
    let lower = target.to_ascii_lowercase();
    let Some(scheme) = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme)) else {
        return (None, target.to_owned());
    };
    let rest = &target[scheme.len()..];
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let path = &rest[host.len()..];
    (Some(host), if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// Whether the node gets a field as it is. `named`: what the client's `Connection` says, of which only as many count
/// as a head may have fields.
fn is_passed_on(name: &str, named: &[String]) -> bool {
    const KEPT: [&str; 5] = ["close", "keep-alive", "upgrade", "host", "authorization"];
    const OWN: [&str; 16] = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-real-ip",
    ];
    let mut named =
        named.iter().filter(|named| !named.is_empty() && !KEPT.contains(&named.as_str())).take(MAX_HEADERS);
    !OWN.contains(&name) && !name.starts_with("x-forwarded-") && !named.any(|named| named == name)
}

/// Checks that `answer` is one whole answer of the connection manager's own with this status, after which the
/// connection ends. `is_head`: whether it has to be without its body; `None` if either is right.
pub fn check_answer(answer: &[u8], status: u16, is_head: Option<bool>) {
    let text = str::from_utf8(answer).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    assert!((400..600).contains(&status) && head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.lines().any(|line| line == "Connection: close"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let whole = body.len() == length.parse::<usize>().expect("a length");
    let left_out = body.is_empty();
    match is_head {
        Some(true) => assert!(left_out, "a body after HEAD: {text}"),
        Some(false) => assert!(whole, "not a whole answer: {text}"),
        None => assert!(whole || left_out, "{text}"),
    }
}

/// A whole, valid PROXY header at the start of `input`: where it ends, and for whom it is. `None` for anything else.
pub fn proxy(input: &[u8]) -> Option<(usize, Source)> {
    if input.starts_with(b"PROXY ") {
        let end = input.windows(2).position(|two| two == b"\r\n")?;
        let line = str::from_utf8(&input[..end]).ok().filter(|line| line.len() <= PROXY_V1_LINE - 2)?;
        if line.contains(['\r', '\n']) {
            return None;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let source = match words[1..] {
            ["UNKNOWN", ..] => Source::Peer,
            [family @ ("TCP4" | "TCP6"), client, local, client_port, local_port] => {
                let address =
                    |word: &str| word.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
                let port = |word: &str| word.parse::<u16>().ok().filter(|port| port.to_string() == word);
                (address(local)?, port(local_port)?);
                let address = SocketAddr::new(address(client)?.to_canonical(), port(client_port)?);
                Source::Client { address, is_tls: false }
            }
            _ => return None,
        };
        return Some((end + 2, source));
    }
    let fixed: &[u8; 16] = input.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if !fixed.starts_with(b"\r\n\r\n\0\r\nQUIT\n") || length > PROXY_V2_LENGTH {
        return None;
    }
    let rest = input.get(16..16 + length)?;
    let source = match (fixed[12], fixed[13]) {
        (0x20, _) | (0x21, 0) => Source::Peer,
        (0x21, 0x31) if length >= 216 => Source::Peer,
        (0x21, 0x11) if length >= 12 => {
            let ip: [u8; 4] = rest[..4].try_into().ok()?;
            let address = SocketAddr::new(ip.into(), u16::from_be_bytes([rest[8], rest[9]]));
            Source::Client { address, is_tls: says_tls(&rest[12..]) }
        }
        (0x21, 0x21) if length >= 36 => {
            let ip: [u8; 16] = rest[..16].try_into().ok()?;
            let ip = IpAddr::from(ip).to_canonical();
            let address = SocketAddr::new(ip, u16::from_be_bytes([rest[32], rest[33]]));
            Source::Client { address, is_tls: says_tls(&rest[36..]) }
        }
        _ => return None,
    };
    Some((16 + length, source))
}

/// Whether the last entry of type 0x20 among these has flags with the lowest bit, be it whole or not.
fn says_tls(mut entries: &[u8]) -> bool {
    let mut last = false;
    while let [kind, high, low, value @ ..] = entries {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if let (0x20, true, Some(flags)) = (*kind, length > 0, value.first()) {
            last = flags & 1 == 1;
        }
        entries = value.get(length..).unwrap_or_default();
    }
    last
}
