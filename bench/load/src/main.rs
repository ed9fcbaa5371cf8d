//! Command line of the load generator: arguments, commands on standard input; the work is in the library.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use megaphone_load::control;
use megaphone_load::engine::{Command, Engine, Settings};
use megaphone_load::tls::Tls;
use megaphone_load::transport::{Kind, Place};

/// Logs many chat users in, keeps them, and lets them talk to each other. Tells about it on standard output, a JSON
/// object a line: start, ready, chat, retry, error, stopped. Commands come on standard input, a line each:
/// add {"users":N}, chat {"messages_per_second":N,"duration":SECONDS}, ping {"per_second":N,"duration":SECONDS}, stop; its
/// end is a stop. Fails when a user cannot log in or is lost, or a message or an answer is lost, doubled or reordered.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// How users connect
    #[arg(long, value_enum)]
    kind: Kind,
    /// What users do
    #[arg(long, value_enum, default_value = "bare")]
    profile: Profile,
    /// The server's address and port
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// Of the URL [default: /bosh, or /ws]
    #[arg(long)]
    path: Option<String>,
    /// The XMPP domain
    #[arg(long, default_value = "localhost")]
    domain: String,
    /// How many users log in at once; more can be added
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// The number of the first user
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// Logins a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pace: u32,
    /// Seconds that BOSH requests are held
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u32,
    /// BOSH users who are online have no poll held: each request has something to say, and there is one at a time
    #[arg(long)]
    no_polls: bool,
    /// Connects with TLS, to a server with the first certificate in this PEM file and none else
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// Seconds that a login may take
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    login_timeout: u64,
    /// How often a failed login is tried again
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Registered users are called by this and their number
    #[arg(long, default_value = "user")]
    name: String,
    /// The password of all registered users
    #[arg(long, default_value = "secret")]
    password: String,
    /// Requests have all the headers of a browser
    #[arg(long)]
    browser_headers: bool,
    /// When all are online, so many messages a second, and then the end
    #[arg(long, value_name = "N", requires = "duration")]
    messages_per_second: Option<f64>,
    /// Seconds for which messages are sent
    #[arg(long, value_name = "SECONDS", requires = "messages_per_second")]
    duration: Option<f64>,
}

/// What users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Anonymous login and presence
    Bare,
    /// Registered users (SCRAM-SHA-1) with stream management, carbons, roster and presence
    Typical,
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("megaphone-load: {text}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), String> {
    control::raise_descriptor_limit()?;
    let path =
        arguments.path.unwrap_or_else(|| if arguments.kind == Kind::Ws { "/ws" } else { "/bosh" }.to_owned());
    let tls = arguments.tls_certificate.map(|file| Tls::new(&file, &arguments.domain)).transpose()?;
    let settings = Settings {
        place: Place {
            kind: arguments.kind,
            target: arguments.target,
            path,
            domain: arguments.domain,
            wait: arguments.wait,
            polls: !arguments.no_polls,
            tls,
            browser: arguments.browser_headers,
        },
        from: arguments.from,
        pace: f64::from(arguments.pace),
        login_timeout: Duration::from_secs(arguments.login_timeout),
        retries: arguments.retries,
        registered: (arguments.profile == Profile::Typical).then_some((arguments.name, arguments.password)),
    };
    let mut engine = Engine::new(settings).map_err(|error| error.to_string())?;
    let (commands, received) = channel();
    let send = |command| commands.send(command).map_err(|error| error.to_string());
    send(Command::Add(arguments.users as usize))?;
    if let (Some(per_second), Some(seconds)) = (arguments.messages_per_second, arguments.duration) {
        if !(per_second > 0.0 && seconds > 0.0 && seconds < 1e6) {
            return Err("messages a second and duration must be positive".to_owned());
        }
        engine.then_chat(per_second, Duration::from_secs_f64(seconds));
    }
    let waker = engine.waker().map_err(|error| error.to_string())?;
    thread::spawn(move || control::read_commands(commands, &waker, Command::read));
    engine.run(&received)
}
