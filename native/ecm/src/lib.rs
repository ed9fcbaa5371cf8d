//! The connection manager of Megaphone (ECM): holds the clients' connections in front of ejabberd, keeps hostile and
//! unfinished input away from it, and carries each client as a virtual connection over one link.
//!
//! One thread, readiness by mio. The alternative, a task per connection on an async runtime, costs some 900 bytes per
//! idle connection; here it is a slot of 40 bytes, and the state machine of a connection
//! ([`megaphone_core::client`]) is tested without any I/O.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`] | what an operator may choose |
//! | [`options`] | all of it, with defaults, from file and command line |
//! | [`listen`] | the socket that clients come to |
//! | [`signals`] | what an operator tells a running manager |
//! | `systemd` | what systemd is told |
//! | `server` | the event loop |
//! | [`guard`] | who the clients are, and what each may do |
//! | `refusals` | what was refused: counters and log |
//! | `complaint` | what the log says once in a while only |
//! | `slab` | the client connections |
//! | `links` | all of them, and which one a client gets |
//! | `link` | a connection to a node, with TLS or without |
//! | `metrics` | what is counted and measured |
//! | `admin` | the address that tells it |
//! | [`tls`] | TLS between a client's socket and its state machine |
//! | `context` | what a client's state machine sees of the loop |

#![forbid(unsafe_code)]

mod admin;
mod complaint;
pub mod config;
mod context;
pub mod guard;
mod link;
mod links;
pub mod listen;
mod metrics;
pub mod options;
mod refusals;
mod server;
pub mod signals;
mod slab;
mod systemd;
pub mod tls;
pub mod websocket;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

pub use config::{Config, Server};
pub use link::Trust;
pub use listen::Listener;

/// Where clients come in; at least one of both.
#[derive(Default)]
pub struct Listeners {
    /// For clients without TLS.
    pub plain: Option<Listener>,
    /// For clients with TLS.
    pub tls: Option<(Listener, tls::Certificates)>,
}

impl<L: Into<Listener>> From<L> for Listeners {
    fn from(plain: L) -> Self {
        Self { plain: Some(plain.into()), tls: None }
    }
}

/// Serves the clients that come to `listeners`, until `commands` says otherwise ([`signals::Command`]) or its other end
/// is closed.
///
/// Draining: no client is accepted any more, each is told to close with its next answer, and the manager ends when all
/// have gone, or after [`Config::drain_timeout`]. Stopping: requests without an answer get 503, virtual connections are
/// closed in the node, and what waits is written, within [`Config::stop_timeout`].
///
/// # Errors
/// What the system answers when the admin address cannot be had, or the event loop not be set up or waited for. The loss of the link is no error: it is
/// tried again; clients' requests wait for it for [`Config::link_wait`], and get 503 then.
pub fn run(listeners: impl Into<Listeners>, config: Config, commands: UnixStream) -> io::Result<()> {
    let shared = Arc::new(metrics::Shared::new(config.max_clients, config.max_held));
    let _admin = config.admin.map(|address| admin::Admin::start(address, Arc::clone(&shared))).transpose()?;
    server::Server::new(listeners.into(), config, commands, shared)?.run()
}
