//! Command line of the real clients of very many users: arguments, commands on standard input; the work is in the library.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

use clap::Parser;
use megaphone_load::control;
use megaphone_load::million::carrier::{Carrier, Command, Settings};

/// Gives users of megaphone-million real clients: takes its link, and makes each virtual connection on it a WebSocket to a
/// connection manager. Tells when it listens, on standard output, as JSON. Standard input takes: stop; its end is a stop.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// Where megaphone-million connects to
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,
    /// The connection manager's address and port
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// The path of WebSockets
    #[arg(long, default_value = "/ws")]
    path: String,
    /// The server's name in requests
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The number of the first client; it decides which addresses of this machine they come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-carrier: {text}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), String> {
    control::raise_descriptor_limit()?;
    let Arguments { listen, target, path, host, from } = arguments;
    let settings = Settings { target, path, host, from, listen };
    let mut carrier = Carrier::new(settings).map_err(|error| format!("the link: {error}"))?;
    let (commands, received) = channel();
    let waker = carrier.waker().map_err(|error| error.to_string())?;
    thread::spawn(move || control::read_commands(commands, &waker, Command::read));
    carrier.run(&received)
}
