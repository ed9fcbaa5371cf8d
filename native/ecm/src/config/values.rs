//! The kinds of values in a configuration file. Each is checked when it is read, so that an error names line and key.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use megaphone_core::limits;
use megaphone_core::link::Secret;
use megaphone_core::peer::network::Network;
use rustls::pki_types::ServerName;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Where the node's listener is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Server {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// `tls://host:port`.
    Tls(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("`unix:` needs a path, as in unix:/run/ejabberd/megaphone.sock".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (kind, address): (fn(String) -> Self, _) = match text.strip_prefix("tls://") {
            Some(address) if address.starts_with("unix:") => {
                return Err(format!(
                    "`{}`: a unix-domain socket needs no TLS: {address}",
                    text.escape_debug()
                ));
            }
            Some(address) => (Self::Tls, address),
            None => (Self::Tcp, text),
        };
        match address.rsplit_once(':') {
            Some((host, port))
                if !host.is_empty()
                    && !host.contains('/')
                    && !host.starts_with("tls:")
                    && port.parse::<u16>().is_ok_and(|port| port > 0) =>
            {
                Ok(kind(address.to_owned()))
            }
            _ => {
                Err(format!("`{}` is none of HOST:PORT, tls://HOST:PORT and unix:/PATH", text.escape_debug()))
            }
        }
    }
}

impl Server {
    /// Whether a link without TLS may be made to this address of it: it does not leave the machine then.
    ///
    /// # Errors
    /// A text for the operator.
    pub(crate) fn check_plain(&self, address: SocketAddr) -> Result<(), String> {
        let ip = address.ip().to_canonical();
        // The unspecified address leads to this machine.
        if ip.is_loopback() || ip.is_unspecified() {
            return Ok(());
        }
        Err(format!(
            "a link to {} leaves this machine, where others could read users' passwords: let it speak TLS (tls://{self}), \
             or set `allow_plain_link = true` if the network is trusted",
            ip
        ))
    }

    /// Where it is, whatever is spoken there.
    fn place(&self) -> (Option<&str>, Option<&Path>) {
        match self {
            Self::Tcp(address) | Self::Tls(address) => (Some(address), None),
            Self::Unix(path) => (None, Some(path)),
        }
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Tls(address) => write!(f, "tls://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A network of `trusted_proxies`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Trusted(pub(super) Network);

impl TryFrom<String> for Trusted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("`{}`: {error}", text.escape_debug()))
    }
}

/// A number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "i64")]
pub struct Within<const LEAST: i64, const MOST: i64>(pub(super) i64);

impl<const LEAST: i64, const MOST: i64> TryFrom<i64> for Within<LEAST, MOST> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let fits = (LEAST..=MOST).contains(&number);
        fits.then_some(Self(number)).ok_or_else(|| format!("{number} is not a number from {LEAST} to {MOST}"))
    }
}

/// An admin address: a port alone is one of 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Admin(pub SocketAddr);

impl TryFrom<toml::Value> for Admin {
    type Error = String;

    /// In a file the port alone may be a number.
    fn try_from(given: toml::Value) -> Result<Self, String> {
        match given {
            toml::Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = text.parse::<u16>().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        local.or_else(|_| text.parse()).map(Self).map_err(|_| {
            format!(
                "`{}` is neither a port nor an address and port, as in 127.0.0.1:9280",
                text.escape_debug()
            )
        })
    }
}

/// One server or several, in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(pub(super) Vec<Server>);

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(String),
            Several(Vec<String>),
        }
        let expected = "a server, as in \"127.0.0.1:6280\", or a list of them";
        let texts = match Form::deserialize(deserializer).map_err(|_| D::Error::custom(expected))? {
            Form::One(text) => vec![text],
            Form::Several(texts) => texts,
        };
        let servers: Result<Vec<Server>, String> = texts.iter().map(|text| text.parse()).collect();
        servers.and_then(Self::try_from).map_err(D::Error::custom)
    }
}

impl TryFrom<Vec<Server>> for Servers {
    type Error = String;

    fn try_from(servers: Vec<Server>) -> Result<Self, String> {
        if servers.is_empty() {
            return Err("`server` names none".to_owned());
        }
        match servers
            .iter()
            .enumerate()
            .find(|(at, server)| servers[..*at].iter().any(|other| other.place() == server.place()))
        {
            Some((_, server)) => Err(format!("server {server} is there twice; `links` gives it more links")),
            None => Ok(Self(servers)),
        }
    }
}

/// A number of links in a file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "i64")]
pub struct Links(pub(super) usize);

impl TryFrom<i64> for Links {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let most = limits::MAX_MANAGER_LINKS;
        usize::try_from(number)
            .ok()
            .filter(|links| (1..=most).contains(links))
            .map(Self)
            .ok_or_else(|| format!("{number} is not a number of links from 1 to {most}"))
    }
}

/// A name that a certificate may have, in a file: a DNS name or an IP address.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Name(pub(super) ServerName<'static>);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ServerName::try_from(text.to_owned())
            .map(Self)
            .map_err(|_| format!("`{}` is neither a DNS name nor an IP address", text.escape_debug()))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The path of a request, in a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct PathName(pub(super) String);

impl TryFrom<String> for PathName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_good = text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
        if is_good {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is no path of a request, as in /ws: it has no query, and no spaces",
            text.escape_debug()
        ))
    }
}

/// An origin of pages (RFC 6454), in a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Origin(pub(super) String);

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let host = text.split_once("://").map_or("", |(_, host)| host);
        if !host.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) && !host.contains('/') {
            return Ok(Self(text));
        }
        let shown = text.escape_debug();
        Err(format!("`{shown}` is no origin of a page, as in https://chat.example or http://localhost:8080"))
    }
}

/// A secret in a file. An error says nothing of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Password(pub(super) Secret);

impl TryFrom<String> for Password {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Secret::new(text.as_bytes()).map(Self).map_err(|error| error.to_string())
    }
}

/// A time limit in a file: 1 second to 1 day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Seconds(pub(super) u64);

impl TryFrom<i64> for Seconds {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u64::try_from(number)
            .ok()
            .filter(|seconds| (1..=86_400).contains(seconds))
            .map(Self)
            .ok_or_else(|| format!("{number} is not a number of seconds from 1 to 86400"))
    }
}

/// A number of something, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Count(pub(super) usize);

impl TryFrom<i64> for Count {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        usize::try_from(number)
            .ok()
            .filter(|count| *count > 0)
            .map(Self)
            .ok_or_else(|| format!("{number} is not a positive number"))
    }
}
