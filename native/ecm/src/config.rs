//! What an operator may choose, and the checked reading of it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use megaphone_core::limits;
use serde::Deserialize;
use tracing::warn;

use crate::options::{Listen, LogFormat, LogLevel};

/// Where the node's listener is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Server {
    /// `host:port`; the host may be a name.
    Tcp(String),
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
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(format!("`{}` is neither HOST:PORT nor unix:/PATH", text.escape_debug())),
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
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that [`crate::run`] needs besides the listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's listener.
    pub server: Server,
    /// Most clients at a time; further ones wait in the kernel until one leaves.
    pub max_clients: usize,
    /// Most bytes that all clients may hold together.
    pub max_held: usize,
    /// For a request head, from its first byte.
    pub head_timeout: Duration,
    /// For progress within a request body.
    pub body_timeout: Duration,
    /// For progress within an answer.
    pub send_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// For the client's end after the last answer.
    pub linger_timeout: Duration,
    /// Silence of the link after which a ping is sent.
    pub link_ping: Duration,
    /// Silence of the link after which it is taken for dead.
    pub link_silence: Duration,
    /// For connecting the link and for the other end's hello.
    pub link_greeting: Duration,
    /// For requests that are held when the manager drains.
    pub drain_timeout: Duration,
    /// Where metrics and health can be asked for.
    pub admin: Option<SocketAddr>,
    /// For what waits when the manager stops.
    pub stop_timeout: Duration,
}

impl Config {
    /// The defaults, which are those of [`megaphone_core::limits`], for a node at `server`. `max_clients` follows from
    /// the descriptors that the process may have.
    #[must_use]
    pub fn new(server: Server) -> Self {
        let millis = |number: u32| Duration::from_millis(u64::from(number));
        Self {
            server,
            max_clients: default_clients(),
            max_held: limits::MAX_HELD,
            head_timeout: millis(limits::HEAD_TIMEOUT),
            body_timeout: millis(limits::BODY_TIMEOUT),
            send_timeout: millis(limits::SEND_TIMEOUT),
            idle_timeout: millis(limits::IDLE_TIMEOUT),
            linger_timeout: millis(limits::LINGER_TIMEOUT),
            link_ping: millis(limits::LINK_PING),
            link_silence: millis(limits::LINK_SILENCE),
            link_greeting: millis(limits::LINK_GREETING),
            drain_timeout: millis(limits::DRAIN_TIMEOUT),
            admin: None,
            stop_timeout: millis(limits::STOP_TIMEOUT),
        }
    }

    /// Puts the file's choices in.
    pub fn apply(&mut self, file: &File) {
        let seconds = |to: &mut Duration, from: &Option<Seconds>| {
            if let Some(Seconds(seconds)) = from {
                *to = Duration::from_secs(*seconds);
            }
        };
        seconds(&mut self.head_timeout, &file.head_timeout);
        seconds(&mut self.body_timeout, &file.body_timeout);
        seconds(&mut self.send_timeout, &file.send_timeout);
        seconds(&mut self.idle_timeout, &file.idle_timeout);
        seconds(&mut self.drain_timeout, &file.drain_timeout);
        if let Some(Count(count)) = file.max_clients {
            if count > self.max_clients {
                warn!(
                    "max_clients = {count} is more than the descriptor limit allows: {} it is (raise LimitNOFILE= of the \
                     systemd unit, or `ulimit -Hn`, to {} at least)",
                    self.max_clients,
                    (count as u64).saturating_add(limits::SPARE_DESCRIPTORS)
                );
            }
            self.max_clients = count.min(self.max_clients);
        }
        if let Some(Admin(address)) = file.admin {
            self.admin = Some(address);
        }
        if let Some(Count(bytes)) = file.max_held {
            self.max_held = bytes;
        }
    }
}

/// The configuration file. Unknown keys are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Address and port for the clients.
    pub listen: Option<Listen>,
    /// The node's listener.
    pub server: Option<Server>,
    /// Most clients at a time; what the descriptor limit allows if that is less.
    pub max_clients: Option<Count>,
    /// Most bytes that all clients may hold together.
    pub max_held: Option<Count>,
    /// Seconds for a request head.
    pub head_timeout: Option<Seconds>,
    /// Seconds without progress in a request body.
    pub body_timeout: Option<Seconds>,
    /// Seconds without progress in an answer.
    pub send_timeout: Option<Seconds>,
    /// Seconds between two requests.
    pub idle_timeout: Option<Seconds>,
    /// Seconds that held requests get after SIGTERM.
    pub drain_timeout: Option<Seconds>,
    /// Whether several processes share the port.
    pub reuse_port: Option<bool>,
    /// Where metrics and health can be asked for.
    pub admin: Option<Admin>,
    /// How much is logged.
    pub log: Option<LogLevel>,
    /// How the log is written.
    pub log_format: Option<LogFormat>,
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

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// A text for the operator: it names the file and, for a mistake in it, the line and the key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the configuration {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("in the configuration {}: {error}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

/// A time limit in a file: 1 second to 1 day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Seconds(u64);

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
pub struct Count(usize);

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

/// Raises the soft limit of open descriptors to the hard one; answers the limit that holds now.
///
/// # Errors
/// What the system answered; the old limit goes on then.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(descriptors())
}

fn descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn default_clients() -> usize {
    let clients = descriptors().saturating_sub(limits::SPARE_DESCRIPTORS).max(1);
    usize::try_from(clients).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_file() {
        let file =
            File::parse("listen = '0.0.0.0:80'\nserver = 'unix:/s'\nidle_timeout = 5\nmax_clients = 7\n")
                .unwrap();
        let mut config = Config::new(file.server.clone().unwrap());
        config.apply(&file);
        assert_eq!(config.server, Server::Unix("/s".into()));
        assert_eq!(config.idle_timeout, Duration::from_secs(5));
        assert_eq!(config.max_clients, 7);
    }

    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (text, parts) in [
            ("listen = '[::]:1'\nlisten_port = 3\n", ["line 2", "listen_port"]),
            ("\n\nlisten = 'a:1'\n", ["line 3", "listen"]),
            ("admin = 'here'\n", ["line 1", "here"]),
            ("admin = 65536\n", ["line 1", "65536"]),
            ("admin = true\n", ["line 1", "`true` is neither"]),
            ("reuse_port = 1\n", ["line 1", "reuse_port"]),
            ("log = 'loud'\n", ["line 1", "loud"]),
            ("log_format = 'xml'\n", ["line 1", "xml"]),
            ("drain_timeout = 0\n", ["line 1", "drain_timeout"]),
            ("\nidle_timeout = 0\n", ["line 2", "idle_timeout"]),
            ("idle_timeout = 86401\n", ["line 1", "86401"]),
            ("max_clients = -1\n", ["line 1", "max_clients"]),
            ("server = 'nowhere'\n", ["line 1", "nowhere"]),
            ("server = 3\n", ["line 1", "server"]),
        ] {
            let error = File::parse(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    /// A port alone is one of the loopback address, as a number or a text.
    #[test]
    fn admin_addresses_are_local_unless_told() {
        let admin = |text: &str| File::parse(text).unwrap().admin.unwrap().0.to_string();
        assert_eq!(admin("admin = 9280"), "127.0.0.1:9280");
        assert_eq!(admin("admin = '9280'"), "127.0.0.1:9280");
        assert_eq!(admin("admin = '[::]:9280'"), "[::]:9280");
    }

    #[test]
    fn servers_have_two_forms() {
        assert_eq!("a:1".parse(), Ok(Server::Tcp("a:1".to_owned())));
        assert_eq!("[::1]:6280".parse(), Ok(Server::Tcp("[::1]:6280".to_owned())));
        for wrong in ["", "a", ":1", "a:0", "a:65536", "unix:"] {
            assert!(wrong.parse::<Server>().is_err(), "{wrong}");
        }
    }
}
