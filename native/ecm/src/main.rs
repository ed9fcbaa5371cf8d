//! Command line of the connection manager: arguments, logging, signals; the work is in the library.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use megaphone_ecm::config::{Admin, Config, File, Server, raise_descriptor_limit};
use megaphone_ecm::{Listener, signals};
use tracing::{info, warn};
use tracing_subscriber::filter::LevelFilter;

/// glibc keeps what a burst of large requests took; this one gives it back within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds the connections of chat clients (BOSH, WebSocket) in front of ejabberd and carries them over one link to its
/// listener `module: megaphone`. Clients get 503 while ejabberd is away. SIGTERM drains it, SIGINT stops it at once.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "The file is TOML. Keys: listen, server, max_clients, max_held (bytes), and in seconds \
    head_timeout, body_timeout, send_timeout, idle_timeout, drain_timeout; reuse_port (true or false), admin. What is given here wins over the file."
)]
struct Arguments {
    /// Address and port for the clients; port 0 takes a free one [default: 127.0.0.1:5280]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// ejabberd's megaphone listener: HOST:PORT or unix:/PATH [default: 127.0.0.1:6280]
    #[arg(long, value_name = "SERVER")]
    server: Option<Server>,
    /// Where metrics and health are told: a port of 127.0.0.1, or ADDR:PORT [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<Admin>,
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

fn start(arguments: &Arguments) -> Result<(), String> {
    let file = arguments.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    match raise_descriptor_limit() {
        Ok(limit) => info!("up to {limit} descriptors"),
        Err(error) => warn!("the limit of descriptors cannot be raised: {error}"),
    }
    let server = arguments.server.clone().or_else(|| file.server.clone());
    let mut config = Config::new(server.unwrap_or_else(|| Server::Tcp("127.0.0.1:6280".to_owned())));
    config.apply(&file);
    if let Some(Admin(address)) = arguments.admin {
        config.admin = Some(address);
    }
    let listen = arguments.listen.as_ref().or(file.listen.as_ref()).map_or("127.0.0.1:5280", String::as_str);
    let listener = Listener::open(listen, file.reuse_port.unwrap_or_default())?;
    let shutdown = signals::watch().map_err(|error| format!("cannot watch signals: {error}"))?;
    let address = listener.socket.local_addr().map_err(|error| error.to_string())?;
    eprintln!("listening on {address}");
    megaphone_ecm::run(listener, config, shutdown).map_err(|error| error.to_string())
}
