//! Conversion of handles, addresses and packets.

use std::net::{IpAddr, SocketAddr};

use megaphone_core::packet::{self, FIELDS, HttpPacket, MAX_TITLE_CASE, METHODS, Uri};
use megaphone_core::table::{Active, Carries, Handle, Packet};
use rustler::types::atom::Atom;
use rustler::types::tuple::make_tuple;
use rustler::{Encoder, Env, Error, NifResult, Term};

/// The atoms of this library.
#[allow(missing_docs, non_snake_case)]
pub(crate) mod atoms {
    rustler::atoms! {
        megaphone_bosh, megaphone_bosh_clock, megaphone_next, undelivered, create, carry, features, end, authenticated, unshaped, resumable,
        host_unknown = "host-unknown", improper_addressing = "improper-addressing", internal_server_error = "internal-server-error",
        item_not_found = "item-not-found", policy_violation = "policy-violation",
        attach, large, shaped, busy, http_and_xmpp, megaphone_sweeper,
        too_big, not_well_formed, restricted,
        xmlel, xmlcdata, xmlstreamstart, xmlstreamend, xmlstreamerror, xmlstreamelement,
        ok, error, closed, einval, limit, links, connections, queue_bytes, waiters, wait, gone, more, stop, start, done, empty, slow, none, open, refused,
        megaphone, megaphone_output, megaphone_socket, megaphone_links, megaphone_down, megaphone_gone, inet = "$inet",
        any, local, session, tunnel, xmpp,
        shutdown, tcp, tcp_closed, tcp_passive, once, read, write, read_write,
        raw, http, http_bin, httph, httph_bin, https,
        http_request, http_response, http_header, http_eoh, http_error,
        abs_path, absoluteURI = "absoluteURI", scheme, undefined, star = "*",
    }
}

pub(crate) fn handle<'a>(env: Env<'a>, handle: &Handle) -> Term<'a> {
    (handle.link, handle.id, handle.slot, handle.generation).encode(env)
}

pub(crate) fn handle_from(term: Term<'_>) -> NifResult<Handle> {
    let (link, id, slot, generation) = term.decode()?;
    Ok(Handle { link, id, slot, generation })
}

/// `{error, closed}`
pub(crate) fn closed(env: Env<'_>) -> Term<'_> {
    (atoms::error(), atoms::closed()).encode(env)
}

/// `{'$inet', megaphone_socket, Handle}`
pub(crate) fn socket<'a>(env: Env<'a>, of: &Handle) -> Term<'a> {
    (atoms::inet(), atoms::megaphone_socket(), handle(env, of)).encode(env)
}

pub(crate) fn address<'a>(env: Env<'a>, address: &SocketAddr) -> Term<'a> {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.octets().encode_tuple(env),
        IpAddr::V6(ip) => ip.segments().encode_tuple(env),
    };
    (ip, address.port()).encode(env)
}

pub(crate) fn address_from(term: Term<'_>) -> NifResult<SocketAddr> {
    let (ip, port): (Term<'_>, u16) = term.decode()?;
    let ip = match ip.decode::<(u8, u8, u8, u8)>() {
        Ok((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        Err(_) => {
            let parts = rustler::types::tuple::get_tuple(ip)?;
            let segments: Vec<u16> = parts.into_iter().map(Term::decode).collect::<NifResult<_>>()?;
            IpAddr::from(<[u16; 8]>::try_from(segments).map_err(|_| Error::BadArg)?)
        }
    };
    Ok(SocketAddr::new(ip, port))
}

trait EncodeTuple {
    fn encode_tuple<'a>(&self, env: Env<'a>) -> Term<'a>;
}

impl<T: Encoder, const N: usize> EncodeTuple for [T; N] {
    fn encode_tuple<'a>(&self, env: Env<'a>) -> Term<'a> {
        let terms: Vec<Term<'a>> = self.iter().map(|part| part.encode(env)).collect();
        make_tuple(env, &terms)
    }
}

pub(crate) fn packet_type(packet: Packet) -> Atom {
    match packet {
        Packet::Raw => atoms::raw(),
        Packet::Http => atoms::http(),
        Packet::HttpBin => atoms::http_bin(),
        Packet::Httph => atoms::httph(),
        Packet::HttphBin => atoms::httph_bin(),
    }
}

pub(crate) fn packet_type_from(atom: Atom) -> NifResult<Packet> {
    [Packet::Raw, Packet::Http, Packet::HttpBin, Packet::Httph, Packet::HttphBin]
        .into_iter()
        .find(|packet| packet_type(*packet) == atom)
        .ok_or(Error::BadArg)
}

pub(crate) fn carries(carries: Carries) -> Atom {
    match carries {
        Carries::Requests => atoms::http(),
        Carries::Tunnel => atoms::tunnel(),
        Carries::Messages => atoms::xmpp(),
        Carries::Local => atoms::local(),
    }
}

pub(crate) fn active<'a>(env: Env<'a>, active: Active) -> Term<'a> {
    match active {
        Active::Passive => false.encode(env),
        Active::Once => atoms::once().encode(env),
        Active::Always => true.encode(env),
        Active::Count(count) => count.encode(env),
    }
}

pub(crate) fn active_from(term: Term<'_>) -> NifResult<Active> {
    if let Ok(always) = term.decode::<bool>() {
        return Ok(if always { Active::Always } else { Active::Passive });
    }
    if let Ok(count) = term.decode::<i16>() {
        return Ok(Active::Count(count));
    }
    let atom: Atom = term.decode()?;
    if atom == atoms::once() { Ok(Active::Once) } else { Err(Error::BadArg) }
}

/// One line as the HTTP packet that `erlang:decode_packet/3` gives for it.
pub(crate) fn packet<'a>(env: Env<'a>, kind: Packet, field: bool, line: &[u8]) -> Term<'a> {
    let binary = matches!(kind, Packet::HttpBin | Packet::HttphBin);
    let decoded = if field { packet::field_line(line) } else { packet::start_line(line) };
    http_packet(env, decoded, &|bytes| string(env, bytes, binary))
}

/// A packet as a term; `text` makes its strings.
pub(crate) fn http_packet<'a>(
    env: Env<'a>,
    packet: HttpPacket<'_>,
    text: &impl Fn(&[u8]) -> Term<'a>,
) -> Term<'a> {
    match packet {
        HttpPacket::Request { method, uri, version } => {
            let method = match packet::method_index(method) {
                Some(at) => self::method(env, at),
                None => text(method),
            };
            (atoms::http_request(), method, uri_term(env, uri, text), version).encode(env)
        }
        HttpPacket::Response { version, status, phrase } => {
            (atoms::http_response(), version, status, text(phrase)).encode(env)
        }
        HttpPacket::Field { name, value } => {
            let original = text(name);
            let (index, given) = match packet::field_index(name) {
                Some(at) => (at + 1, known_atoms(env).fields[at].encode(env)),
                None => {
                    let mut buffer = [0; MAX_TITLE_CASE];
                    let cased = packet::title_case(name, &mut buffer);
                    (0, if name.len() > MAX_TITLE_CASE || cased == name { original } else { text(cased) })
                }
            };
            (atoms::http_header(), index, given, original, text(value)).encode(env)
        }
        HttpPacket::EndOfHead => atoms::http_eoh().encode(env),
        HttpPacket::Error(line) => (atoms::http_error(), text(line)).encode(env),
    }
}

fn uri_term<'a>(env: Env<'a>, uri: Uri<'_>, text: &impl Fn(&[u8]) -> Term<'a>) -> Term<'a> {
    match uri {
        Uri::Star => atoms::star().encode(env),
        Uri::Path(path) => (atoms::abs_path(), text(path)).encode(env),
        Uri::Absolute { https, host, port, path } => {
            let scheme = if https { atoms::https() } else { atoms::http() };
            let port = port.map_or_else(|| atoms::undefined().encode(env), |port| port.encode(env));
            (atoms::absoluteURI(), scheme, text(host), port, text(path)).encode(env)
        }
        Uri::Scheme(scheme, rest) => (atoms::scheme(), text(scheme), text(rest)).encode(env),
        Uri::Other(target) => text(target),
    }
}

/// A string as the packet mode wants it: a binary, or a list of bytes.
fn string<'a>(env: Env<'a>, bytes: &[u8], binary: bool) -> Term<'a> {
    if binary { self::binary(env, bytes) } else { bytes.encode(env) }
}

/// The atom of one of [`METHODS`].
pub(crate) fn method(env: Env<'_>, at: usize) -> Term<'_> {
    known_atoms(env).methods[at].encode(env)
}

/// A binary with a copy of the bytes.
pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut term = rustler::NewBinary::new(env, bytes.len());
    term.as_mut_slice().copy_from_slice(bytes);
    term.into()
}

/// The atoms for known methods and field names: a fixed set, never from input.
struct Known {
    methods: Vec<Atom>,
    fields: Vec<Atom>,
}

fn known_atoms(env: Env<'_>) -> &'static Known {
    static KNOWN: std::sync::OnceLock<Known> = std::sync::OnceLock::new();
    KNOWN.get_or_init(|| {
        let all = |names: &[&str]| {
            names
                .iter()
                .map(|name| Atom::from_str(env, name).unwrap_or_else(|_| atoms::undefined()))
                .collect()
        };
        Known { methods: all(&METHODS), fields: all(&FIELDS) }
    })
}

/// A map with atom keys, all of them literals of this library.
pub(crate) fn map<'a>(env: Env<'a>, pairs: &[(&str, Term<'a>)]) -> Term<'a> {
    let mut map = Term::map_new(env);
    for (key, value) in pairs {
        if let Ok(key) = Atom::from_str(env, key) {
            map = map.map_put(key.encode(env), *value).unwrap_or(map);
        }
    }
    map
}
