//! What an operator may choose, and the checked reading of it.

mod values;

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use megaphone_core::limits;
use megaphone_core::link::Secret;
use serde::Deserialize;
use tracing::warn;
pub use values::{
    Admin, Count, Links, Name, Origin, Password, PathName, Seconds, Server, Servers, Trusted, Within,
};

use crate::guard::Settings;
use crate::link::Trust;
use crate::options::{Listen, LogFormat, LogLevel};
use crate::tls::Section;
use crate::websocket::WebSockets;

/// Everything that [`crate::run`] needs besides the listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// The nodes' listeners, at least one. Nodes of one cluster: a client may come to any.
    pub servers: Vec<Server>,
    /// Links to each of them, at least one.
    pub links: usize,
    /// What both ends of a link have to know; `None`: it is opened without.
    pub link_secret: Option<Secret>,
    /// Whose certificates are good for [`Server::Tls`]; there if there is one.
    pub link_trust: Option<Trust>,
    /// Links without TLS may leave this machine.
    pub allow_plain_link: bool,
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
    /// How long requests wait for a link when the last one is lost ([`limits::LINK_WAIT`]).
    pub link_wait: Duration,
    /// For requests that are held when the manager drains.
    pub drain_timeout: Duration,
    /// Where metrics and health can be asked for.
    pub admin: Option<SocketAddr>,
    /// For what waits when the manager stops.
    pub stop_timeout: Duration,
    /// Who the clients are, and what each may do.
    pub guard: Settings,
    /// Which WebSockets end here, and how.
    pub websocket: WebSockets,
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
            link_trust: None,
            allow_plain_link: false,
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
            link_wait: millis(limits::LINK_WAIT),
            drain_timeout: millis(limits::DRAIN_TIMEOUT),
            admin: None,
            stop_timeout: millis(limits::STOP_TIMEOUT),
            guard: Settings::default(),
            websocket: WebSockets::default(),
        }
    }

    /// Puts the file's choices in.
    ///
    /// # Errors
    /// A text for the operator: the file of the secret, or the one of `link_ca`, cannot be used, there are too many links,
    /// or a server is not to be had with TLS, or without.
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
        self.allow_plain_link = file.allow_plain_link.unwrap_or(self.allow_plain_link);
        self.secure_links(file)?;
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
        seconds(&mut self.websocket.ping, &file.websocket_ping);
        seconds(&mut self.websocket.pong, &file.websocket_pong);
        if let Some(paths) = &file.websocket_paths {
            self.websocket.paths = paths.iter().map(|PathName(path)| path.clone()).collect();
        }
        if let Some(origins) = &file.websocket_origins {
            self.websocket.origins = Some(origins.iter().map(|Origin(origin)| origin.clone()).collect());
        }
        Ok(())
    }

    /// Reads what servers with TLS need, and looks at those without.
    fn secure_links(&mut self, file: &File) -> Result<(), String> {
        let with_tls = |server: &&Server| matches!(server, Server::Tls(_));
        let name = file.link_name.as_ref().map(|Name(name)| name.clone());
        match (self.servers.iter().find(with_tls), &file.link_ca, name) {
            (Some(server), None, _) => {
                return Err(format!(
                    "server {server} needs `link_ca`: the PEM file with the certificate of the authority that its own one is \
                     from"
                ));
            }
            (None, None, None) => {}
            (None, ..) => {
                return Err("`link_ca` and `link_name` are for servers with TLS, and there is none: write tls://HOST:PORT"
                    .to_owned());
            }
            (Some(_), Some(path), name) => self.link_trust = Some(Trust::load(path, name)?),
        }
        for server in &self.servers {
            match (server, &self.link_trust) {
                (Server::Tls(address), Some(trust)) => drop(trust.name_of(address)?),
                (Server::Tcp(address), _) if !self.allow_plain_link => {
                    // A name is looked up, and looked at, when the link is made.
                    address.parse().map_or(Ok(()), |address| server.check_plain(address))?;
                }
                _ => {}
            }
        }
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
    /// PEM file with the authorities that servers with TLS have their certificates from.
    pub link_ca: Option<PathBuf>,
    /// The name in those certificates, if it is not that of the server.
    pub link_name: Option<Name>,
    /// Whether links without TLS may leave this machine.
    pub allow_plain_link: Option<bool>,
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
    /// Paths of WebSockets that end here.
    pub websocket_paths: Option<Vec<PathName>>,
    /// Origins of pages that may use them.
    pub websocket_origins: Option<Vec<Origin>>,
    /// Most bytes of a message.
    pub websocket_max_message: Option<Within<1_024, 16_777_216>>,
    /// Seconds without a byte of a WebSocket's client after which it is pinged.
    pub websocket_ping: Option<Seconds>,
    /// Seconds for its answer.
    pub websocket_pong: Option<Seconds>,
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
        set(&mut to.bounds.message, self.websocket_max_message);
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
mod tests;
