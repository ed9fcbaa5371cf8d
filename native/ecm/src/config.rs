//! What an operator may choose, and the checked reading of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use megaphone_core::limits;
use serde::Deserialize;
use tracing::warn;

use crate::tls::Section;

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
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// How long a TLS handshake is not dropped for another one.
    pub handshake_grace: Duration,
    /// Most TLS handshakes at a time that are not complete; never more than a quarter of `max_clients`.
    pub max_handshakes: usize,
    /// Requests without TLS are refused, unless they come from this machine.
    pub require_tls: bool,
    /// Silence of the link after which a ping is sent.
    pub link_ping: Duration,
    /// Silence of the link after which it is taken for dead.
    pub link_silence: Duration,
    /// For connecting the link and for the other end's hello.
    pub link_greeting: Duration,
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
            handshake_timeout: millis(limits::HANDSHAKE_TIMEOUT),
            handshake_grace: millis(limits::HANDSHAKE_GRACE),
            max_handshakes: limits::MAX_HANDSHAKES,
            require_tls: false,
            link_ping: millis(limits::LINK_PING),
            link_silence: millis(limits::LINK_SILENCE),
            link_greeting: millis(limits::LINK_GREETING),
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
        if let Some(tls) = &file.tls {
            seconds(&mut self.handshake_timeout, &tls.handshake_timeout);
            if let Some(Count(count)) = tls.max_handshakes {
                self.max_handshakes = count;
            }
        }
        self.require_tls = file.require_tls.unwrap_or(self.require_tls);
        if let Some(Count(count)) = file.max_clients {
            if count > self.max_clients {
                warn!("max_clients = {count} is more than the descriptor limit allows: {}", self.max_clients);
            }
            self.max_clients = count.min(self.max_clients);
        }
        if let Some(Count(bytes)) = file.max_held {
            self.max_held = bytes;
        }
    }
}

/// The configuration file. Unknown keys are refused by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Address and port for the clients.
    pub listen: Option<String>,
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
    /// Whether requests without TLS are refused, unless they come from this machine.
    pub require_tls: Option<bool>,
    /// TLS for clients.
    pub tls: Option<Section>,
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

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

/// A time limit in a file: 1 second to 1 day.
#[derive(Clone, Copy, Debug, Deserialize)]
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
#[derive(Clone, Copy, Debug, Deserialize)]
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
            ("listen = 'a:1'\nlisten_port = 3\n", ["line 2", "listen_port"]),
            ("\nidle_timeout = 0\n", ["line 2", "idle_timeout"]),
            ("idle_timeout = 86401\n", ["line 1", "86401"]),
            ("max_clients = -1\n", ["line 1", "max_clients"]),
            ("server = 'nowhere'\n", ["line 1", "nowhere"]),
            ("server = 3\n", ["line 1", "server"]),
            ("require_tls = 1\n", ["line 1", "require_tls"]),
            ("[tls]\nlisten = 'a'\n", ["line 2", "`a`"]),
            ("[tls]\n\ncertificates = []\n", ["line 3", "certificates"]),
        ] {
            let error = File::parse(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
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
