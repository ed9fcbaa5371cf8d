//! What an operator may choose, and the checked reading of it.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use megaphone_core::limits;
use megaphone_core::link::Secret;
use megaphone_core::peer::network::Network;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tracing::warn;

use crate::guard::Settings;
use crate::options::{Listen, LogFormat, LogLevel};
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
    /// The nodes' listeners, at least one. Nodes of one cluster: a client may come to any.
    pub servers: Vec<Server>,
    /// Links to each of them, at least one.
    pub links: usize,
    /// What both ends of a link have to know; `None`: it is opened without.
    pub link_secret: Option<Secret>,
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
    /// For requests that are held when the manager drains.
    pub drain_timeout: Duration,
    /// Where metrics and health can be asked for.
    pub admin: Option<SocketAddr>,
    /// For what waits when the manager stops.
    pub stop_timeout: Duration,
    /// Who the clients are, and what each may do.
    pub guard: Settings,
}

impl Config {
    /// The defaults, which are those of [`megaphone_core::limits`], for a node at `server`. `max_clients` follows from
    /// the descriptors that the process may have.
    #[must_use]
    pub fn new(server: Server) -> Self {
        let millis = |number: u32| Duration::from_millis(u64::from(number));
        Self {
            servers: vec![server],
            links: 1,
            link_secret: None,
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
            drain_timeout: millis(limits::DRAIN_TIMEOUT),
            admin: None,
            stop_timeout: millis(limits::STOP_TIMEOUT),
            guard: Settings::default(),
        }
    }

    /// Puts the file's choices in.
    ///
    /// # Errors
    /// A text for the operator: the file of the secret cannot be used, or there are too many links.
    pub fn apply(&mut self, file: &File) -> Result<(), String> {
        if let Some(Servers(servers)) = &file.server {
            self.servers.clone_from(servers);
        }
        if let Some(Links(links)) = file.links {
            self.links = links;
        }
        let all = self.links * self.servers.len();
        if all > limits::MAX_MANAGER_LINKS {
            let most = limits::MAX_MANAGER_LINKS;
            return Err(format!("`links` for each `server` makes {all} links in all, the most is {most}"));
        }
        self.link_secret = match (&file.link_secret, &file.link_secret_file) {
            (None, None) => self.link_secret.take(),
            (Some(Password(secret)), None) => Some(secret.clone()),
            (None, Some(path)) => Some(read_secret(path)?),
            (Some(_), Some(_)) => {
                return Err("give either `link_secret` or `link_secret_file`, not both".to_owned());
            }
        };
        let seconds = |to: &mut Duration, from: &Option<Seconds>| {
            if let Some(Seconds(seconds)) = from {
                *to = Duration::from_secs(*seconds);
            }
        };
        seconds(&mut self.head_timeout, &file.head_timeout);
        seconds(&mut self.body_timeout, &file.body_timeout);
        seconds(&mut self.send_timeout, &file.send_timeout);
        seconds(&mut self.idle_timeout, &file.idle_timeout);
        if let Some(Seconds(silence)) = file.link_silence {
            self.link_silence = Duration::from_secs(silence);
            self.link_ping = self.link_silence / 3;
        }
        seconds(&mut self.drain_timeout, &file.drain_timeout);
        if let Some(tls) = &file.tls {
            seconds(&mut self.handshake_timeout, &tls.handshake_timeout);
            if let Some(Count(count)) = tls.max_handshakes {
                self.max_handshakes = count;
            }
        }
        self.require_tls = file.require_tls.unwrap_or(self.require_tls);
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
        file.guard(&mut self.guard);
        Ok(())
    }
}

/// The configuration file. Unknown keys are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Address and port for the clients.
    pub listen: Option<Listen>,
    /// The node's listener, or those of several nodes of a cluster.
    pub server: Option<Servers>,
    /// Links to each server.
    pub links: Option<Links>,
    /// What both ends of a link have to know: the listener's option `secret`.
    pub link_secret: Option<Password>,
    /// A file that holds it.
    pub link_secret_file: Option<PathBuf>,
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
    /// Seconds without a byte from a node, its answers to pings included, until its link is given up.
    pub link_silence: Option<Seconds>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: Option<bool>,
    /// Networks of the proxies that are believed.
    pub trusted_proxies: Option<Vec<Trusted>>,
    /// Most connections of a client address.
    pub max_clients_per_address: Option<Within<1, 4_000_000>>,
    /// Most new connections of a client address in a second.
    pub max_new_clients_per_address: Option<Within<1, 1_000_000>>,
    /// Most new connections in a second.
    pub max_new_clients_per_second: Option<Within<1, 1_000_000>>,
    /// Leading bits of an IPv6 address that count as one client.
    pub ipv6_prefix: Option<Within<1, 128>>,
    /// Most requests of a connection.
    pub max_requests_per_client: Option<Within<1, 65_535>>,
    /// Most bytes of a request body.
    pub max_body: Option<Within<1, { i64::MAX }>>,
    /// Most bytes of a request head.
    pub max_head: Option<Within<512, { limits::MAX_HEAD as i64 }>>,
    /// Most fields of a request head.
    pub max_headers: Option<Within<1, { limits::MAX_HEADERS as i64 }>>,
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
    /// Whether requests without TLS are refused, unless they come from this machine.
    pub require_tls: Option<bool>,
    /// TLS for clients.
    pub tls: Option<Section>,
}

/// A network of `trusted_proxies`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Trusted(Network);

impl TryFrom<String> for Trusted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("`{}`: {error}", text.escape_debug()))
    }
}

/// A number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "i64")]
pub struct Within<const LEAST: i64, const MOST: i64>(i64);

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

impl File {
    /// What it says of clients and proxies.
    fn guard(&self, to: &mut Settings) {
        fn set<T: TryFrom<i64>, const L: i64, const M: i64>(to: &mut T, from: Option<Within<L, M>>) {
            // The range of each is one that its type holds.
            if let Some(number) = from.and_then(|Within(number)| T::try_from(number).ok()) {
                *to = number;
            }
        }
        to.proxy_protocol = self.proxy_protocol.unwrap_or(to.proxy_protocol);
        if let Some(networks) = &self.trusted_proxies {
            to.trusted_proxies = networks.iter().map(|Trusted(network)| *network).collect();
        }
        set(&mut to.addresses.clients, self.max_clients_per_address);
        set(&mut to.addresses.new_per_second, self.max_new_clients_per_address);
        set(&mut to.addresses.ipv6_prefix, self.ipv6_prefix);
        set(&mut to.new_per_second, self.max_new_clients_per_second);
        set(&mut to.bounds.requests, self.max_requests_per_client);
        set(&mut to.bounds.body, self.max_body);
        set(&mut to.bounds.head.bytes, self.max_head);
        set(&mut to.bounds.head.fields, self.max_headers);
    }

    /// What no single key shows to be wrong.
    fn check(&self) -> Result<(), String> {
        let networks = self.trusted_proxies.as_ref().map_or(0, Vec::len);
        if self.proxy_protocol == Some(true) && networks == 0 {
            return Err("proxy_protocol = true refuses everybody without trusted_proxies: name the proxies' networks \
                        there, as in trusted_proxies = [\"10.0.0.0/8\"]"
                .to_owned());
        }
        if networks > limits::MAX_TRUSTED_PROXIES {
            return Err(format!(
                "trusted_proxies has {networks} networks, the most are {}: name larger ones",
                limits::MAX_TRUSTED_PROXIES
            ));
        }
        Ok(())
    }

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
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check().map(|()| file)
    }
}

/// Reads a secret from a file of its own; white space around it does not count.
///
/// # Errors
/// A text for the operator, which names the file and says nothing of what is in it.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let bytes = std::fs::read(path)
        .map_err(|error| format!("cannot read the secret in {}: {error}", path.display()))?;
    let mode = std::fs::metadata(path).map(|data| data.mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        warn!("others may read the secret in {}: chmod 600 it", path.display());
    }
    Secret::new(bytes.trim_ascii()).map_err(|error| format!("in {}: {error}", path.display()))
}

/// One server or several, in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<Server>);

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
        match servers.iter().enumerate().find(|(at, server)| servers[..*at].contains(server)) {
            Some((_, server)) => Err(format!("server {server} is there twice; `links` gives it more links")),
            None => Ok(Self(servers)),
        }
    }
}

/// A number of links in a file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "i64")]
pub struct Links(usize);

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

/// A secret in a file. An error says nothing of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Password(Secret);

impl TryFrom<String> for Password {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Secret::new(text.as_bytes()).map(Self).map_err(|error| error.to_string())
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
        let mut config = Config::new("a:1".parse().unwrap());
        config.apply(&file).unwrap();
        assert_eq!(config.servers, [Server::Unix("/s".into())]);
        assert_eq!(config.idle_timeout, Duration::from_secs(5));
        assert_eq!(config.max_clients, 7);
    }

    /// Each key about clients and proxies arrives where it belongs, at its least and its greatest.
    #[test]
    fn reads_what_clients_may_do() {
        let text = "proxy_protocol = true\ntrusted_proxies = ['10.0.0.0/8', '::1']\nmax_clients_per_address = 1\n\
                    max_new_clients_per_address = 1000000\nmax_new_clients_per_second = 1\nipv6_prefix = 128\n\
                    max_requests_per_client = 65535\nmax_body = 9223372036854775807\nmax_head = 512\nmax_headers = 100\n";
        let mut config = Config::new(Server::Tcp("a:1".to_owned()));
        config.apply(&File::parse(text).unwrap()).unwrap();
        let guard = config.guard;
        assert!(guard.proxy_protocol && guard.exempt_loopback);
        assert_eq!(
            guard.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "::1/128"]
        );
        assert_eq!((guard.addresses.clients, guard.addresses.new_per_second), (1, 1_000_000));
        assert_eq!((guard.addresses.ipv6_prefix, guard.new_per_second), (128, 1));
        assert_eq!((guard.bounds.requests, guard.bounds.body), (65_535, i64::MAX as u64));
        assert_eq!((guard.bounds.head.bytes, guard.bounds.head.fields), (512, 100));
        let many = format!("trusted_proxies = [{}]", "'::1',".repeat(limits::MAX_TRUSTED_PROXIES + 1));
        assert!(File::parse(&many).unwrap_err().contains("65 networks"));
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
            ("server = []\n", ["line 1", "server"]),
            ("server = ['a:1', 'nowhere']\n", ["line 1", "nowhere"]),
            ("server = ['a:1', 'b:1', 'a:1']\n", ["line 1", "a:1 is there twice"]),
            ("links = 0\n", ["line 1", "1 to 64"]),
            ("links = 65\n", ["line 1", "1 to 64"]),
            ("\nlink_secret = 'short'\n", ["line 2", "16 to 1024 bytes, not 5"]),
            ("\nmax_body = 0\n", ["line 2", "max_body"]),
            ("max_head = 511\n", ["line 1", "from 512 to 16384"]),
            ("max_headers = 101\n", ["line 1", "from 1 to 100"]),
            ("max_requests_per_client = 65536\n", ["line 1", "from 1 to 65535"]),
            ("max_clients_per_address = 0\n", ["line 1", "max_clients_per_address"]),
            ("ipv6_prefix = 129\n", ["line 1", "from 1 to 128"]),
            ("trusted_proxies = ['10.0.0.0/8', '10.1.0.0/8']\n", ["line 1", "the network is 10.0.0.0/8"]),
            ("proxy_protocol = true\n", ["proxy_protocol", "trusted_proxies"]),
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

    /// A port alone is one of the loopback address, as a number or a text.
    #[test]
    fn admin_addresses_are_local_unless_told() {
        let admin = |text: &str| File::parse(text).unwrap().admin.unwrap().0.to_string();
        assert_eq!(admin("admin = 9280"), "127.0.0.1:9280");
        assert_eq!(admin("admin = '9280'"), "127.0.0.1:9280");
        assert_eq!(admin("admin = '[::]:9280'"), "[::]:9280");
    }

    #[test]
    fn several_servers_and_links() {
        let mut config = Config::new("a:1".parse().unwrap());
        let file = |links: usize| {
            File::parse(&format!(
                "server = ['a:1', 'unix:/s']\nlinks = {links}\nlink_secret = '{}'",
                "x".repeat(16)
            ))
            .unwrap()
        };
        config.apply(&file(limits::MAX_MANAGER_LINKS / 2)).unwrap();
        assert_eq!(config.servers, [Server::Tcp("a:1".to_owned()), Server::Unix("/s".into())]);
        assert_eq!(config.links, 32);
        assert_eq!(config.link_secret, Some(Secret::new(&[b'x'; 16]).unwrap()));
        assert!(config.apply(&file(limits::MAX_MANAGER_LINKS / 2 + 1)).unwrap_err().contains("66 links"));
        assert!(!format!("{config:?}").contains("xxx"));
    }

    #[test]
    fn a_secret_has_a_file_of_its_own() {
        let path = std::env::temp_dir().join(format!("megaphone-ecm-secret-{}", std::process::id()));
        let text = format!("link_secret_file = '{}'", path.display());
        let mut config = Config::new("a:1".parse().unwrap());
        let missing = config.apply(&File::parse(&text).unwrap()).unwrap_err();
        assert!(missing.contains("megaphone-ecm-secret"), "{missing}");
        std::fs::write(&path, "sixteen bytes or more\n").unwrap();
        config.apply(&File::parse(&text).unwrap()).unwrap();
        assert_eq!(config.link_secret, Some(Secret::new(b"sixteen bytes or more").unwrap()));
        let both = format!("link_secret = '{}'\n{text}", "x".repeat(16));
        assert!(config.apply(&File::parse(&both).unwrap()).unwrap_err().contains("not both"));
        std::fs::write(&path, "fifteen bytes__\n\n").unwrap();
        let short = config.apply(&File::parse(&text).unwrap()).unwrap_err();
        assert!(short.contains("not 15") && !short.contains("fifteen"), "{short}");
        std::fs::remove_file(&path).unwrap();
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
