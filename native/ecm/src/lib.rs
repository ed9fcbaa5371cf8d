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
//! | `server` | the event loop |
//! | [`guard`] | who the clients are, and what each may do |
//! | `refusals` | what was refused: counters and log |
//! | `slab` | the client connections |
//! | `link` | a connection to a node |
//! | `links` | all of them, and which one a client gets |
//! | `context` | what a client's state machine sees of the loop |

#![forbid(unsafe_code)]

pub mod config;
mod context;
pub mod guard;
mod link;
mod links;
mod refusals;
mod server;
mod slab;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

pub use config::{Config, Server};

/// Serves the clients that come to `listener`, until `shutdown` has a byte to read or its other end is closed.
///
/// Then no client is accepted any more, requests without an answer get 503, virtual connections are closed in the
/// node, and what waits is written, within [`Config::stop_timeout`].
///
/// # Errors
/// What the system answers when the event loop cannot be set up or waited for. The loss of the link is no error: it is
/// tried again, and clients get 503 meanwhile.
pub fn run(listener: TcpListener, config: Config, shutdown: UnixStream) -> io::Result<()> {
    server::Server::new(listener, config, shutdown)?.run()
}
