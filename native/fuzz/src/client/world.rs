//! The world around a client's state machine: the kernel's buffer, and the node's end of the link with its rules.

use std::net::{Ipv4Addr, SocketAddr};

use megaphone_core::client::{Io, Refusal};
use megaphone_core::limits::{DATA_CHUNK, WINDOW};
use megaphone_core::link::{CloseReason, Frame, Kind, Open};

const ID: u64 = 7;

#[derive(Debug)]
pub(super) struct World {
    /// The node's window while the link is up.
    pub(super) window: Option<u32>,
    /// Bytes that the client takes before it is written to no more.
    pub(super) takes: usize,
    pub(super) crowded: bool,
    /// The client's socket still has an address.
    pub(super) present: bool,
    /// The node knows the virtual connection.
    pub(super) open: bool,
    /// Bytes that the node accepts, and that it may send.
    pub(super) credit: u64,
    pub(super) allowed: u64,
    /// What came on each virtual connection.
    pub(super) node: Vec<Vec<u8>>,
    pub(super) closes: Vec<CloseReason>,
    /// What the client took.
    pub(super) heard: Vec<u8>,
    pub(super) ended: bool,
    pub(super) refused: Vec<u16>,
}

impl World {
    pub(super) fn new(window: u32, takes: usize) -> Self {
        Self {
            window: Some(window),
            takes,
            crowded: false,
            present: true,
            open: false,
            credit: 0,
            allowed: 0,
            node: Vec::new(),
            closes: Vec::new(),
            heard: Vec::new(),
            ended: false,
            refused: Vec::new(),
        }
    }
}

fn addresses() -> (SocketAddr, SocketAddr) {
    (SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), SocketAddr::from((Ipv4Addr::LOCALHOST, 2)))
}

impl Io for World {
    fn id(&self) -> u64 {
        ID
    }

    fn window(&self) -> Option<u32> {
        self.window
    }

    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.present.then(addresses)
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        let window = self.window.expect("a frame without a link");
        assert_eq!(self.open, !matches!(frame, Frame::Open { .. }), "{} frame", frame.name());
        match *frame {
            Frame::Open { id, open } => {
                let (client, local) = addresses();
                assert_eq!((id, open), (ID, Open { kind: Kind::Http, tls: false, client, local }));
                self.open = true;
                (self.credit, self.allowed) = (window.into(), WINDOW.into());
                self.node.push(Vec::new());
            }
            Frame::Data { id, payload } => {
                assert!(id == ID && (1..=DATA_CHUNK).contains(&payload.len()));
                let left = self.credit.checked_sub(payload.len() as u64);
                self.credit = left.expect("data beyond credit");
                self.node.last_mut().expect("an open one").extend_from_slice(payload);
            }
            Frame::Window { id, increment } => {
                assert!(id == ID && increment >= WINDOW / 2, "a grant not worth a frame");
                self.allowed += u64::from(increment);
                assert!(self.allowed <= WINDOW.into(), "more is granted than may be held");
            }
            Frame::Close { id, reason } => {
                assert_eq!(id, ID);
                self.open = false;
                self.closes.push(reason);
            }
            _ => panic!("{} frame", frame.name()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        assert!(!self.ended, "written after the end");
        let count = bytes.len().min(self.takes);
        self.takes -= count;
        self.heard.extend_from_slice(&bytes[..count]);
        count
    }

    fn shutdown_write(&mut self) {
        assert!(!self.ended, "ended twice");
        self.ended = true;
    }

    fn crowded(&self) -> bool {
        self.crowded
    }

    fn refused(&mut self, _refusal: Refusal, status: u16) {
        self.refused.push(status);
    }
}
