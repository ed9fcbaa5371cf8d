//! Command line of the connection manager: arguments, logging, signals; the work is in the library.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use megaphone_ecm::Listeners;
use megaphone_ecm::config::{Config, File, Server, raise_descriptor_limit};
use megaphone_ecm::tls::{Address, Certificates, Pair};
use signal_hook::consts;
use tracing::{info, warn};
use tracing_subscriber::filter::LevelFilter;

/// glibc keeps what a burst of large requests took; this one gives it back within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds the connections of chat clients (BOSH, WebSocket) in front of ejabberd and carries them over one link to its
/// listener `module: megaphone`. Clients get 503 while ejabberd is away; SIGTERM and SIGINT stop it cleanly,
/// SIGHUP reads the TLS certificates again.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "The file is TOML. Keys: listen, server, max_clients, max_held (bytes), and in seconds \
    head_timeout, body_timeout, send_timeout, idle_timeout; require_tls (true or false); in the section [tls] listen, \
    handshake_timeout, max_handshakes, and in each [[tls.certificate]] certificate and key. What is given here wins over the file."
)]
struct Arguments {
    /// Address and port for clients without TLS; port 0 takes a free one [default: 127.0.0.1:5280, or none if there is
    /// one for TLS]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// ejabberd's megaphone listener: HOST:PORT or unix:/PATH [default: 127.0.0.1:6280]
    #[arg(long, value_name = "SERVER")]
    server: Option<Server>,
    /// Address and port for clients with TLS (https)
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Option<Address>,
    /// Certificate chain for TLS, PEM; takes the place of all that are in the file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
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
    let listeners = listeners(arguments, file)?;
    let shutdown = on_signals(&[consts::SIGTERM, consts::SIGINT])?;
    say_where(&listeners).map_err(|error| error.to_string())?;
    megaphone_ecm::run(listeners, config, shutdown).map_err(|error| error.to_string())
}

fn listeners(arguments: &Arguments, file: File) -> Result<Listeners, String> {
    let section = file.tls.unwrap_or_default();
    let mut pairs = section.certificate;
    if let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) {
        pairs = vec![Pair { certificate: certificate.clone(), key: key.clone() }];
    }
    let tls = match arguments.tls_listen.or(section.listen) {
        Some(Address(address)) => {
            let certificates = Certificates::load(pairs)?;
            Some((bind(address, "--tls-listen")?, certificates))
        }
        None if pairs.is_empty() => None,
        None => {
            return Err("TLS needs an address for its clients: `listen` in [tls], or --tls-listen".to_owned());
        }
    };
    let plain = match arguments.listen.as_ref().or(file.listen.as_ref()) {
        Some(listen) => Some(bind(address(listen)?, "--listen")?),
        None if tls.is_some() => None,
        None => Some(bind(address("127.0.0.1:5280")?, "--listen")?),
    };
    Ok(Listeners { plain, tls, reload: Some(on_signals(&[consts::SIGHUP])?) })
}

fn say_where(listeners: &Listeners) -> io::Result<()> {
    if let Some((listener, _)) = &listeners.tls {
        eprintln!("listening with TLS on {}", listener.local_addr()?);
    }
    if let Some(listener) = &listeners.plain {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    Ok(())
}

fn address(listen: &str) -> Result<SocketAddr, String> {
    listen
        .parse()
        .map_err(|_| format!("`{}` is no address and port, as in 0.0.0.0:5280", listen.escape_debug()))
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program (perhaps by a running megaphone-ecm, or by ejabberd's own HTTP \
             listener): stop that one, or choose another port with {option}"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE")
        }
        _ => format!("cannot listen on {address}: {error}"),
    })
}

/// A stream that becomes readable with one of the signals.
fn on_signals(signals: &[i32]) -> Result<UnixStream, String> {
    let watch = || {
        let (reader, writer) = UnixStream::pair()?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        Ok(reader)
    };
    watch().map_err(|error: io::Error| format!("cannot watch signals: {error}"))
}
