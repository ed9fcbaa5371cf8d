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
//! | `slab` | the client connections |
//! | `link` | the connection to the node |
//! | [`tls`] | TLS between a client's socket and its state machine |
//! | `context` | what a client's state machine sees of the loop |

#![forbid(unsafe_code)]

pub mod config;
mod context;
mod link;
mod server;
mod slab;
pub mod tls;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

pub use config::{Config, Server};

/// Where clients come in.
#[derive(Default)]
pub struct Listeners {
    /// For clients without TLS.
    pub plain: Option<TcpListener>,
    /// For clients with TLS.
    pub tls: Option<(TcpListener, tls::Certificates)>,
    /// Has a byte to read whenever the certificates are to be read again.
    pub reload: Option<UnixStream>,
}

impl From<TcpListener> for Listeners {
    fn from(plain: TcpListener) -> Self {
        Self { plain: Some(plain), ..Self::default() }
    }
}

/// Serves the clients that come to `listeners`, until `shutdown` has a byte to read or its other end is closed.
///
/// Then no client is accepted any more, requests without an answer get 503, virtual connections are closed in the
/// node, and what waits is written, within [`Config::stop_timeout`].
///
/// # Errors
/// What the system answers when the event loop cannot be set up or waited for. The loss of the link is no error: it is
/// tried again, and clients get 503 meanwhile.
pub fn run(listeners: impl Into<Listeners>, config: Config, shutdown: UnixStream) -> io::Result<()> {
    server::Server::new(listeners.into(), config, shutdown)?.run()
}
