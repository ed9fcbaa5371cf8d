//! A client that must come by TLS.

use super::*;

/// The world of a client without TLS, where it is required.
struct Insecure(World);

impl Io for Insecure {
    fn lacks_tls(&self) -> bool {
        true
    }
    fn id(&self) -> u64 {
        self.0.id()
    }
    fn window(&self) -> Option<u32> {
        self.0.window()
    }
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0.addresses()
    }
    fn frame(&mut self, frame: &Frame<'_>) {
        self.0.frame(frame);
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.write(bytes)
    }
    fn shutdown_write(&mut self) {
        self.0.shutdown_write();
    }
    fn crowded(&self) -> bool {
        self.0.crowded()
    }
    fn refused(&mut self, refusal: Refusal, status: u16) {
        self.0.refused(refusal, status);
    }
}

/// It gets 403 as soon as its head is there, with or without a link; nothing of it goes to the node or is held.
#[test]
fn a_request_without_tls_is_refused_by_its_head() {
    for window in [None, Some(limits::WINDOW)] {
        let mut world = Insecure(World { window, ..World::new() });
        let mut client = Client::new();
        client.input(b"POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n", &mut world);
        assert!(world.0.refused.is_empty());
        client.input(b"\r\npass", &mut world);
        client.input(b"word!", &mut world);
        assert_eq!(world.0.refused, [403]);
        assert!(world.0.taken.starts_with(b"HTTP/1.1 403 Forbidden\r\n") && world.0.ended);
        assert!(world.0.wire.is_empty());
        assert_eq!(client.heap(), 0);
    }
}
