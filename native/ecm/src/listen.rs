//! The socket that clients come to: bound here, shared with other processes, or handed over by who started this one.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = i32::MAX;

/// Whose a listening socket is: what becomes of clients that wait in it when this process leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Ours alone: they are taken and served, then it is closed.
    Bound,
    /// One of several on the same port (`SO_REUSEPORT`): new ones are turned to the others, the rest is taken.
    Shared,
    /// Handed over, and held by others too: they are left to the next process.
    Inherited,
}

/// A listening socket for clients.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Whose it is.
    pub origin: Origin,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, origin: Origin::Bound }
    }
}

impl Listener {
    /// Takes the socket that was handed over, by systemd or as descriptor 3 (`LISTEN_FDS=1`, `LISTEN_PID` empty or the
    /// id of this process); else binds `listen`.
    ///
    /// # Errors
    /// A text for the operator that says what to do.
    pub fn open(listen: SocketAddr, reuse_port: bool) -> Result<Self, String> {
        match Self::inherited()? {
            Some(listener) => Ok(listener),
            None => Self::bind(listen, reuse_port, "--listen"),
        }
    }

    fn inherited() -> Result<Option<Self>, String> {
        let mut handed = ListenFd::from_env();
        match handed.len() {
            0 => Ok(None),
            1 => handed
                .take_tcp_listener(0)
                .map(|socket| socket.map(|socket| Self { socket, origin: Origin::Inherited }))
                .map_err(|error| {
                    format!("the socket that was handed over (LISTEN_FDS) is of no use: {error}")
                }),
            count => Err(format!(
                "{count} sockets were handed over (LISTEN_FDS), but clients can come to one only: leave one \
                 ListenStream= in the socket unit; `[::]:PORT` takes IPv4 too"
            )),
        }
    }

    /// Binds an address; `option` is the one that names it.
    ///
    /// # Errors
    /// As [`Listener::open`].
    pub fn bind(address: SocketAddr, reuse_port: bool, option: &str) -> Result<Self, String> {
        let bound = if reuse_port {
            shared(address).map(|socket| Self { socket, origin: Origin::Shared })
        } else {
            TcpListener::bind(address).map(Self::from)
        };
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse if reuse_port => format!(
                "{address} is in use by a program that does not share it: all megaphone-ecm on one port need \
                 `reuse_port = true` and the same user"
            ),
            io::ErrorKind::AddrInUse => format!(
                "{address} is in use by another program (perhaps by a running megaphone-ecm, or by ejabberd's own HTTP \
                 listener): stop that one, or choose another port with {option}"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission to listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            ),
            _ => format!("cannot listen on {address}: {error}"),
        })
    }
}

fn shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The standard library sets it too: connections of a process before this one do not hinder.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes a listening socket deaf to new connections, while handshakes that have begun still come to their end.
///
/// The kernel deals new connections out to all sockets of a port, and resets those that wait in one that is closed. A
/// classic BPF filter drops their first segment instead: the client sends it again after a second, and it goes to
/// another socket, since this one is closed by then.
///
/// # Errors
/// What the system answers.
pub(crate) fn turn_away(listener: &mio::net::TcpListener) -> io::Result<()> {
    // Opcodes of linux/bpf_common.h; the filter sees the segment from its TCP header on.
    const LOAD_BYTE: u16 = 0x30; // LD | B | ABS
    const AND: u16 = 0x54; // ALU | AND | K
    const JUMP_EQUAL: u16 = 0x15; // JMP | JEQ | K
    const RETURN: u16 = 0x06; // RET | K
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN_OR_ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}
