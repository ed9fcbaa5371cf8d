//! Command line of the very many users: arguments, commands on standard input; the work is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use megaphone_load::control;
use megaphone_load::million::crowd;
use megaphone_load::million::engine::{Command, Engine, Settings};
use megaphone_load::million::link::Target;

/// Stands in for a connection manager with very many clients: logs anonymous users in over links to ejabberd, and keeps
/// them. Tells about it on standard output, a JSON object a line: progress, full, ready, chat, left, error, stopped. Commands
/// come on standard input, a line each: enough (no more users than there are), chat {"messages_per_second":N,"duration":SECONDS},
/// leave {"per_second":N}, stop; its end is a stop. Fails when a user cannot log in, is lost or cannot leave, or a message is
/// lost, doubled or reordered. Where there is no room for another connection it says so (full), and goes on with those it has.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// How users connect
    #[arg(long, value_enum)]
    kind: Kind,
    /// Where ejabberd listens for links, or a megaphone-carrier, which has real clients; links go there by turns
    #[arg(long, value_name = "ADDR:PORT|unix:/PATH", required = true)]
    target: Vec<Target>,
    /// Links that users are dealt out to
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    links: u32,
    /// The path of BOSH
    #[arg(long, default_value = "/bosh")]
    path: String,
    /// The XMPP domain
    #[arg(long, default_value = "localhost")]
    domain: String,
    /// How many users log in
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..16_000_000))]
    users: u32,
    /// Logins a second
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pace: u32,
    /// Users who log in, or leave, at a time, at most; fewer when they take long
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Seconds that BOSH requests are held
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u32,
    /// Seconds that a login, or to leave, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

/// How users connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// WebSockets that end in the connection manager
    Ws,
    /// BOSH
    Bosh,
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-million: {text}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), String> {
    let settings = Settings {
        targets: arguments.target,
        crowd: crowd::Settings {
            bosh: arguments.kind == Kind::Bosh,
            domain: arguments.domain,
            path: arguments.path,
            wait: arguments.wait,
            users: arguments.users as usize,
            links: arguments.links as usize,
        },
        pace: f64::from(arguments.pace),
        at_once: arguments.at_once as usize,
        within: Duration::from_secs(arguments.within),
    };
    let mut engine = Engine::new(settings).map_err(|error| format!("the links: {error}"))?;
    let (commands, received) = channel();
    let waker = engine.waker().map_err(|error| error.to_string())?;
    thread::spawn(move || control::read_commands(commands, &waker, Command::read));
    engine.run(&received)
}
