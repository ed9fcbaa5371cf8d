//! Command line of the connection manager: arguments, logging, signals; the work is in the library.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use megaphone_ecm::config::{Config, File, Server, raise_descriptor_limit};
use tracing::{info, warn};
use tracing_subscriber::filter::LevelFilter;

/// glibc keeps what a burst of large requests took; this one gives it back within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds the connections of chat clients (BOSH, WebSocket) in front of ejabberd and carries them over one link to its
/// listener `module: megaphone`. Clients get 503 while ejabberd is away; SIGTERM and SIGINT stop it cleanly.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "The file is TOML. Keys: listen, server, links, link_secret, link_secret_file, max_clients, \
    max_held (bytes); in seconds head_timeout, body_timeout, send_timeout, idle_timeout, link_silence; proxy_protocol, \
    trusted_proxies, max_clients_per_address, max_new_clients_per_address, max_new_clients_per_second, ipv6_prefix, \
    max_requests_per_client, max_body, max_head, max_headers. What is given here wins over the file."
)]
struct Arguments {
    /// Address and port for the clients; port 0 takes a free one [default: 127.0.0.1:5280]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// ejabberd's megaphone listener: HOST:PORT or unix:/PATH [default: 127.0.0.1:6280]; more than once for a cluster
    #[arg(long, value_name = "SERVER")]
    server: Vec<Server>,
    /// Links to each server [default: 1]
    #[arg(long, value_name = "N")]
    links: Option<usize>,
    /// File with the secret that the listener demands
    #[arg(long, value_name = "FILE")]
    link_secret_file: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(arguments.log)
        .init();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-ecm: {text}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    /// The file's choices, with those of the command line in their place.
    fn over(&self, mut file: File) -> Result<File, String> {
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
        Ok(file)
    }
}

fn start(arguments: &Arguments) -> Result<(), String> {
    let file = arguments.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    match raise_descriptor_limit() {
        Ok(limit) => info!("up to {limit} descriptors"),
        Err(error) => warn!("the limit of descriptors cannot be raised: {error}"),
    }
    let listen = file.listen.clone();
    let mut config = Config::new(Server::Tcp("127.0.0.1:6280".to_owned()));
    config.apply(&arguments.over(file)?)?;
    let listen = arguments.listen.clone().or(listen).unwrap_or_else(|| "127.0.0.1:5280".to_owned());
    let listener = bind(&listen)?;
    let shutdown = on_signals().map_err(|error| format!("cannot watch signals: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    eprintln!("listening on {address}");
    megaphone_ecm::run(listener, config, shutdown).map_err(|error| error.to_string())
}

fn bind(listen: &str) -> Result<TcpListener, String> {
    let address: SocketAddr = listen
        .parse()
        .map_err(|_| format!("`{}` is no address and port, as in 0.0.0.0:5280", listen.escape_debug()))?;
    TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program (perhaps by a running megaphone-ecm, or by ejabberd's own HTTP \
             listener): stop that one, or choose another port with --listen"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE")
        }
        _ => format!("cannot listen on {address}: {error}"),
    })
}

/// A stream that becomes readable with SIGTERM or SIGINT.
fn on_signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}
