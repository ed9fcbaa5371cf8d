//! Draining: who is idle goes, who waits gets its answer, and nobody is refused who had come before.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;

const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n";

fn draining() -> (Ecm, Node) {
    let (mut ecm, node) = Ecm::linked();
    ecm.command(Command::Drain);
    (ecm, node)
}

/// A held poll is answered when ejabberd answers it, is told to close, and then the manager ends by itself.
#[test]
fn a_held_request_is_answered_before_the_end() {
    let (mut ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    ecm.command(Command::Drain);
    // Long enough for a manager that does not wait to be gone.
    node.nothing();
    assert!(refuses(ecm.address));
    node.answer(id, "x");
    client.expect(&format!("{CLOSING}x"));
    assert_eq!(client.rest(), "");
    drop(client);
    assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    assert_eq!(node.next(), Event::Ended);
    ecm.ended();
}

/// Waits until the manager has closed its listening socket.
fn refuses(address: std::net::SocketAddr) -> bool {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if std::net::TcpStream::connect(address).is_err() {
            return true;
        }
    }
    false
}

/// Without clients a drained manager ends at once, whatever its time limit.
#[test]
fn nobody_is_waited_for_when_nobody_is_there() {
    let (mut ecm, mut node) = draining();
    assert_eq!(node.next(), Event::Ended);
    ecm.ended();
}

/// A client that is idle is closed after a while, and not before: it may have just sent its next request.
#[test]
fn an_idle_client_is_closed_after_a_while() {
    let (mut ecm, mut node) = Ecm::linked();
    let (mut silent, mut idle, mut busy) = (ecm.client(), ecm.client(), ecm.client());
    for client in [&mut idle, &mut busy] {
        client.send(GET);
        let id = node.first(GET);
        node.answer(id, "x");
        client.expect(&response("x"));
    }
    ecm.command(Command::Drain);
    let since = Instant::now();
    busy.send(GET);
    let Event::Data(id, _) = node.next() else { panic!() };
    node.answer(id, "y");
    busy.expect(&format!("{CLOSING}y"));
    assert_eq!((busy.rest(), idle.rest(), silent.rest()), <_>::default());
    // To a tick of the manager's clock.
    assert!(since.elapsed() + Duration::from_millis(200) >= Duration::from_millis(limits::DRAIN_IDLE.into()));
    drop((busy, idle, silent));
    ecm.ended();
}

/// What is left when the time limit passes is cut off as when the manager stops: 503 for a request, a tunnel's end.
#[test]
fn the_time_limit_cuts_off() {
    let mut ecm = Ecm::with(|config| config.drain_timeout = Duration::from_secs(1));
    let mut node = ecm.accept();
    let (mut waiting, mut tunnel) = (ecm.client(), ecm.client());
    waiting.send(GET);
    node.first(GET);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tunnel.send(upgrade);
    let id = node.first(upgrade);
    node.tunnel(id);
    node.data(id, b"before");
    tunnel.expect("before");
    ecm.command(Command::Drain);
    let since = Instant::now();
    // A tunnel goes on meanwhile.
    node.data(id, b"while");
    tunnel.expect("while");
    assert!(waiting.refused(503).contains("stops"));
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert_eq!(tunnel.rest(), "");
    drop((waiting, tunnel));
    ecm.ended();
}

/// The second order to drain, and one to stop, end a draining manager at once.
#[test]
fn draining_can_be_cut_short() {
    for command in [Command::Drain, Command::Stop] {
        let (mut ecm, mut node) = Ecm::linked();
        let mut client = ecm.client();
        client.send(GET);
        node.first(GET);
        ecm.command(Command::Drain);
        ecm.command(command);
        client.refused(503);
        ecm.ended();
    }
}

/// Clients that the kernel has connected, and the manager not yet accepted, are served before the socket is closed.
#[test]
fn who_waits_to_be_accepted_is_served() {
    let mut ecm = Ecm::start();
    // No client is accepted while the link neither fails nor greets.
    let _node = ecm.accept_raw();
    let mut clients: Vec<Client> = (0..20).map(|_| ecm.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    ecm.command(Command::Drain);
    for client in &mut clients {
        assert!(client.refused(503).contains("not connected"));
    }
    drop(clients);
    ecm.ended();
}

/// A new manager takes no client before its link is there, so that none gets 503 from it that another would serve.
#[test]
fn clients_wait_for_a_new_manager() {
    let ecm = Ecm::start();
    let raw = ecm.accept_raw();
    let mut client = ecm.client();
    client.send(GET);
    let mut node = raw;
    node.exchange_hellos(limits::WINDOW);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}
