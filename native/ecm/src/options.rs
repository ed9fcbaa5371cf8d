//! Everything that an operator chose, from the file and the command line, with the defaults in the place of the rest.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Value;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, File, Server};
use crate::link::Trust;
use crate::tls::{Certificates, Pair, Section};

/// Where clients connect if nothing else is said.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5_280);

/// ejabberd's listener if nothing else is said.
const SERVER: &str = "127.0.0.1:6280";

/// Address and port for clients, with or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("`{}` is no address and port, as in 0.0.0.0:5280", text.escape_debug()))
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// A line of text an event.
    #[default]
    Text,
    /// A line of JSON an event.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{}` is neither text nor json", text.escape_debug())),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogLevel(pub LevelFilter);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(LevelFilter::ERROR),
            "warn" => Ok(LevelFilter::WARN),
            "info" => Ok(LevelFilter::INFO),
            "debug" => Ok(LevelFilter::DEBUG),
            _ => Err(format!("`{}` is none of error, warn, info, debug", text.escape_debug())),
        }
        .map(Self)
    }
}

macro_rules! from_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_text!(Listen, LogFormat, LogLevel);

/// What is in force.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port for clients without TLS.
    pub listen: Option<SocketAddr>,
    /// Address and port for clients with TLS, and the certificates.
    pub tls: Option<(SocketAddr, Vec<Pair>)>,
    /// Whether several processes share the port.
    pub reuse_port: bool,
    /// How much is logged.
    pub log: LevelFilter,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Where the secret came from, if it has a file of its own.
    pub link_secret_file: Option<PathBuf>,
    /// What the event loop needs.
    pub config: Config,
}

impl Options {
    /// The file's choices, in which those of the command line were put already, and defaults.
    ///
    /// # Errors
    /// A text for the operator: choices that do not go together, or a file that cannot be used.
    pub fn new(file: &File) -> Result<Self, String> {
        let mut config = Config::new(Server::Tcp(SERVER.to_owned()));
        config.apply(file)?;
        let tls = secure(file.tls.as_ref())?;
        let listen = file.listen.map(|Listen(address)| address);
        Ok(Self {
            listen: listen.or_else(|| tls.is_none().then_some(LISTEN)),
            tls,
            reuse_port: file.reuse_port.unwrap_or_default(),
            log: file.log.map_or(LevelFilter::INFO, |LogLevel(level)| level),
            log_format: file.log_format.unwrap_or_default(),
            link_secret_file: file.link_secret_file.clone(),
            config,
        })
    }

    /// Reads the certificates, if there are any, for the address with TLS.
    ///
    /// # Errors
    /// A text for the operator, which names the file.
    pub fn certificates(&self) -> Result<Option<(SocketAddr, Certificates)>, String> {
        let Some((address, pairs)) = &self.tls else { return Ok(None) };
        Certificates::load(pairs.clone()).map(|certificates| Some((*address, certificates)))
    }

    /// The section `[tls]` with what is in force.
    fn section(&self) -> Option<Value> {
        let (address, pairs) = self.tls.as_ref()?;
        let path = |path: &PathBuf| Value::String(path.display().to_string());
        let pair = |pair: &Pair| {
            let files = [("certificate", path(&pair.certificate)), ("key", path(&pair.key))];
            Value::Table(files.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
        };
        let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let table = [
            ("listen", Value::String(address.to_string())),
            ("certificate", Value::Array(pairs.iter().map(pair).collect())),
            ("handshake_timeout", number(self.config.handshake_timeout.as_secs())),
            ("max_handshakes", number(self.config.max_handshakes as u64)),
        ];
        Some(Value::Table(table.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()))
    }

    /// Each key of a file with its value, in the order of [`File`]; `None` if it stands for nothing.
    #[must_use]
    pub fn keys(&self) -> Vec<(&'static str, Option<Value>)> {
        let text = |value: &dyn fmt::Display| Some(Value::String(value.to_string()));
        let count = |number: usize| Some(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)));
        let seconds =
            |span: Duration| Some(Value::Integer(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)));
        let (config, guard) = (&self.config, &self.config.guard);
        let trusted =
            guard.trusted_proxies.iter().map(|network| Value::String(network.to_string())).collect();
        let number = |number: i64| Some(Value::Integer(number));
        let texts = |texts: &[String]| Some(Value::Array(texts.iter().cloned().map(Value::String).collect()));
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let servers = match &config.servers[..] {
            [server] => Value::String(server.to_string()),
            servers => Value::Array(servers.iter().map(|server| Value::String(server.to_string())).collect()),
        };
        // What it is stays where it is.
        let secret = match (&config.link_secret, &self.link_secret_file) {
            (Some(_), None) => text(&"(as given)"),
            _ => None,
        };
        vec![
            ("listen", self.listen.and_then(|address| text(&address))),
            ("server", Some(servers)),
            ("links", count(config.links)),
            ("link_secret", secret),
            ("link_secret_file", self.link_secret_file.as_ref().and_then(|path| text(&path.display()))),
            ("link_ca", config.link_trust.as_ref().and_then(|trust| text(&trust.file().display()))),
            ("link_name", config.link_trust.as_ref().and_then(Trust::given_name).map(Value::String)),
            ("allow_plain_link", Some(Value::Boolean(config.allow_plain_link))),
            ("max_clients", count(config.max_clients)),
            ("max_held", count(config.max_held)),
            ("head_timeout", seconds(config.head_timeout)),
            ("body_timeout", seconds(config.body_timeout)),
            ("send_timeout", seconds(config.send_timeout)),
            ("idle_timeout", seconds(config.idle_timeout)),
            ("link_silence", seconds(config.link_silence)),
            ("proxy_protocol", Some(Value::Boolean(guard.proxy_protocol))),
            ("trusted_proxies", Some(Value::Array(trusted))),
            ("max_clients_per_address", number(i64::from(guard.addresses.clients))),
            ("max_new_clients_per_address", number(i64::from(guard.addresses.new_per_second))),
            ("max_new_clients_per_second", number(i64::from(guard.new_per_second))),
            ("ipv6_prefix", number(i64::from(guard.addresses.ipv6_prefix))),
            ("max_requests_per_client", number(i64::from(guard.bounds.requests))),
            ("max_body", number(i64::try_from(guard.bounds.body).unwrap_or(i64::MAX))),
            ("max_head", count(guard.bounds.head.bytes)),
            ("max_headers", count(guard.bounds.head.fields)),
            ("websocket_paths", texts(&config.websocket.paths)),
            ("websocket_origins", config.websocket.origins.as_deref().and_then(texts)),
            ("websocket_max_message", number(i64::from(guard.bounds.message))),
            ("websocket_ping", seconds(config.websocket.ping)),
            ("websocket_pong", seconds(config.websocket.pong)),
            ("drain_timeout", seconds(config.drain_timeout)),
            ("reuse_port", Some(Value::Boolean(self.reuse_port))),
            ("admin", config.admin.and_then(|address| text(&address))),
            ("log", text(&self.log)),
            ("log_format", text(&format)),
            ("require_tls", Some(Value::Boolean(config.require_tls))),
            ("tls", self.section()),
        ]
    }
}

/// Where clients come by TLS, and with what.
fn secure(section: Option<&Section>) -> Result<Option<(SocketAddr, Vec<Pair>)>, String> {
    let Some(section) = section else { return Ok(None) };
    match (section.listen, section.certificate.is_empty()) {
        (Some(Listen(address)), false) => Ok(Some((address, section.certificate.clone()))),
        (None, _) => Err("TLS needs an address for its clients: `listen` in [tls], or --tls-listen".to_owned()),
        (Some(_), true) => Err(
            "TLS needs a certificate: [[tls.certificate]] with `certificate` and `key`, or --tls-certificate and --tls-key"
                .to_owned(),
        ),
    }
}

impl fmt::Display for Options {
    /// As a configuration file that says all of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in self.keys() {
            match value {
                Some(value) => writeln!(f, "{key} = {value}")?,
                None => writeln!(f, "# {key} is not set")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::de::{Deserializer, Error, Visitor, value};
    use serde::forward_to_deserialize_any;

    use super::*;

    /// Learns what keys a structure has.
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("not a structure"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Error::custom("learned"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn all_keys() -> Vec<&'static str> {
        let mut fields: &'static [&'static str] = &[];
        let _ = File::deserialize(Fields(&mut fields));
        assert!(!fields.is_empty());
        fields.to_vec()
    }

    fn defaults() -> Options {
        Options::new(&File::default()).unwrap()
    }

    /// What is printed as being in force has every key of a file, and is such a file.
    #[test]
    fn the_effective_configuration_is_whole() {
        let options = defaults();
        let keys: Vec<&str> = options.keys().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, all_keys());
        let again = Options::new(&File::parse(&options.to_string()).unwrap()).unwrap();
        assert_eq!(again.to_string(), options.to_string());
    }

    /// The example in the manual has every key once, as a comment, with the default that is true; where the default is
    /// none, or the machine's own, it says so behind the value.
    #[test]
    fn the_example_tells_the_defaults() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/megaphone-ecm.toml");
        let example = std::fs::read_to_string(example).unwrap();
        assert!(File::parse(&example).unwrap() == File::default());
        // A line `# key = value` is a key; other comments are prose.
        let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let lines: Vec<&str> =
            example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
        let keys: Vec<&str> = lines.iter().map(|line| line.split_once(" = ").unwrap().0).collect();
        assert_eq!(keys, all_keys());
        // With nothing before its keys it can be read.
        File::parse(&lines.join("\n")).unwrap();
        for (line, (key, value)) in lines.iter().zip(defaults().keys()) {
            let value =
                value.map_or_else(|| "# default: none".to_owned(), |value| format!("{key} = {value}"));
            match line.split_once("  # default: ") {
                Some((_, "none")) => assert_eq!(value, "# default: none", "{key}"),
                Some((_, said)) => {
                    assert!(said.contains("descriptor limit") && key == "max_clients", "{key}")
                }
                None => assert_eq!(*line, value),
            }
        }
    }

    #[test]
    fn the_command_line_is_read_strictly() {
        assert_eq!("[::1]:80".parse(), Ok(Listen("[::1]:80".parse().unwrap())));
        assert_eq!("debug".parse(), Ok(LogLevel(LevelFilter::DEBUG)));
        assert!("localhost:80".parse::<Listen>().is_err());
        assert!("loud".parse::<LogLevel>().is_err());
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
