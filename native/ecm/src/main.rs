//! Command line of the connection manager: arguments, logging, signals; the work is in the library.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use megaphone_ecm::config::{Admin, File, Name, Server, raise_descriptor_limit};
use megaphone_ecm::options::{Listen, LogFormat, LogLevel, Options};
use megaphone_ecm::tls::{Pair, unix_time};
use megaphone_ecm::{Listener, Listeners, signals};
use tracing::{info, warn};
use tracing_subscriber::filter::LevelFilter;

/// glibc keeps what a burst of large requests took; this one gives it back within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds the connections of chat clients (BOSH, WebSocket) in front of ejabberd and carries them over links to its
/// listener `module: megaphone`. Clients get 503 while ejabberd is away. SIGTERM drains it, SIGINT stops it at
/// once, SIGHUP reads the TLS certificates and --link-ca again.
#[derive(Parser, Debug)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "The file is TOML. `megaphone-ecm check FILE` prints every key with what is in force (the defaults, for \
    /dev/null). What is given here wins over the file."
)]
struct Arguments {
    /// Address and port for the clients; port 0 takes a free one [default: 127.0.0.1:5280, or
    /// none if there is one for TLS]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<Listen>,
    /// ejabberd's megaphone listener: HOST:PORT, tls://HOST:PORT or unix:/PATH [default: 127.0.0.1:6280]; more than once for a cluster
    #[arg(long, value_name = "SERVER")]
    server: Vec<Server>,
    /// Links to each server [default: 1]
    #[arg(long, value_name = "N")]
    links: Option<usize>,
    /// File with the secret that the listener demands
    #[arg(long, value_name = "FILE")]
    link_secret_file: Option<PathBuf>,
    /// PEM file with the authorities that certificates of servers with TLS are from
    #[arg(long, value_name = "FILE")]
    link_ca: Option<PathBuf>,
    /// The name in those certificates [default: the server's host]
    #[arg(long, value_name = "NAME")]
    link_name: Option<Name>,
    /// Links without TLS may leave this machine
    #[arg(long)]
    allow_plain_link: bool,
    /// Where metrics and health are told: a port of 127.0.0.1, or ADDR:PORT [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<Admin>,
    /// Address and port for clients that come by TLS [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Option<Listen>,
    /// PEM file with the certificate for TLS and those between it and its authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much to log: error, warn, info, debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<LogLevel>,
    /// How to log: text, json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Reads a configuration file and prints what would be in force; exit status 1 if something is wrong
    Check {
        /// Configuration file
        file: PathBuf,
    },
}

impl Arguments {
    /// The file's choices, and over them those that were given here.
    fn choices(&self) -> Result<File, String> {
        let mut file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        if !self.server.is_empty() {
            file.server = Some(self.server.clone().try_into()?);
        }
        if let Some(links) = self.links {
            file.links = Some(i64::try_from(links).unwrap_or(i64::MAX).try_into()?);
        }
        if let Some(path) = &self.link_secret_file {
            file.link_secret = None;
            file.link_secret_file = Some(path.clone());
        }
        if self.allow_plain_link {
            file.allow_plain_link = Some(true);
        }
        if let Some(address) = self.tls_listen {
            file.tls.get_or_insert_default().listen = Some(address);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            let pair = Pair { certificate: certificate.clone(), key: key.clone() };
            file.tls.get_or_insert_default().certificate = vec![pair];
        }
        Ok(File {
            listen: self.listen.or(file.listen),
            admin: self.admin.or(file.admin),
            link_ca: self.link_ca.clone().or(file.link_ca),
            link_name: self.link_name.clone().or(file.link_name),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
            ..file
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Check { file }) => check(file),
        None => arguments.choices().and_then(|file| start(&file)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-ecm: {text}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path) -> Result<(), String> {
    let file = File::read(path)?;
    // For warnings; the limit that is raised is the one that `max_clients` follows from.
    log(LevelFilter::WARN, LogFormat::Text);
    let _ = raise_descriptor_limit();
    let options = Options::new(&file)?;
    if let Some((_, certificates)) = options.certificates()? {
        certificates.warn_of_expiry(unix_time());
    }
    print!("{options}");
    Ok(())
}

fn start(file: &File) -> Result<(), String> {
    let level = file.log.map_or(LevelFilter::INFO, |LogLevel(level)| level);
    log(level, file.log_format.unwrap_or_default());
    match raise_descriptor_limit() {
        Ok(limit) => info!("up to {limit} descriptors"),
        Err(error) => warn!("the limit of descriptors cannot be raised: {error}"),
    }
    let options = Options::new(file)?;
    let listeners = open(&options)?;
    let commands = signals::watch().map_err(|error| format!("cannot watch signals: {error}"))?;
    say_where(&listeners, options.log_format).map_err(|error| error.to_string())?;
    megaphone_ecm::run(listeners, options.config, commands).map_err(|error| error.to_string())
}

fn open(options: &Options) -> Result<Listeners, String> {
    let plain = options.listen.map(|address| Listener::open(address, options.reuse_port)).transpose()?;
    let tls = match options.certificates()? {
        Some((address, certificates)) => {
            Some((Listener::bind(address, options.reuse_port, "--tls-listen")?, certificates))
        }
        None => None,
    };
    Ok(Listeners { plain, tls })
}

fn say_where(listeners: &Listeners, format: LogFormat) -> io::Result<()> {
    let say = |text: &str, listener: &Listener| {
        let address = listener.socket.local_addr()?;
        match format {
            // Said at any level: who starts the program may wait for it.
            LogFormat::Text => eprintln!("{text} {address}"),
            LogFormat::Json => info!("{text} {address}"),
        }
        Ok(())
    };
    if let Some((listener, _)) = &listeners.tls {
        say("listening with TLS on", listener)?;
    }
    listeners.plain.as_ref().map_or(Ok(()), |listener| say("listening on", listener))
}

fn log(level: LevelFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(level);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
