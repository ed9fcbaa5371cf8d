//! Command line of the HTTP clients: arguments, commands on standard input; the work is in the library.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

use clap::Parser;
use megaphone_load::clients::{Clients, Command, Settings};
use megaphone_load::control;
use megaphone_load::tls::Tls;

/// Opens many HTTP connections and keeps them, with requests as they are asked for. Tells about it on standard output, a
/// JSON object a line: opened, fetched, asked, error, stopped. Commands come on standard input, a line each:
/// upto {"connections":N}, fetch {"bytes":N,"at_once":N}, ask {"per_second":N,"duration":SECONDS,"bytes":N}, stop; its end is a stop.
/// Fails when a connection is lost or an answer is not what it should be.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The server's address and port
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// The server's name in requests
    #[arg(long, default_value = "localhost")]
    host: String,
    /// What each connection asks for when it is new
    #[arg(long, default_value = "/bosh")]
    path: String,
    /// Where files are of which the name tells the content: NUMBER-LENGTH, the byte at P is (NUMBER + P) modulo 251
    #[arg(long, default_value = "/files")]
    files: String,
    /// How many files there are of each length
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    file_count: u32,
    /// The number of the first connection; it decides which addresses of this machine they come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// New connections a second
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pace: u32,
    /// Requests of new connections at a time
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Connects with TLS, to a server with the first certificate in this PEM file and none else
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-clients: {text}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), String> {
    control::raise_descriptor_limit()?;
    let tls = arguments.tls_certificate.map(|file| Tls::new(&file, &arguments.host)).transpose()?;
    let settings = Settings {
        target: arguments.target,
        host: arguments.host,
        path: arguments.path,
        files: arguments.files,
        file_count: arguments.file_count,
        from: arguments.from,
        pace: f64::from(arguments.pace),
        at_once: arguments.at_once as usize,
        tls,
    };
    let mut clients = Clients::new(settings).map_err(|error| error.to_string())?;
    let (commands, received) = channel();
    let waker = clients.waker().map_err(|error| error.to_string())?;
    thread::spawn(move || control::read_commands(commands, &waker, Command::read));
    clients.run(&received)
}
