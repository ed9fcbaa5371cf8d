//! Requests that come while the last link is lost wait for another one, for a while.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::tls::{TlsClient, connect, start};
use common::*;
use megaphone_core::limits;
use megaphone_core::link::{ErrorCode, Frame};
use megaphone_ecm::signals::Command;

/// A client that had a virtual connection, one that had none, and one whose request has come in part are served by the next link.
#[test]
fn requests_wait_for_the_next_link() {
    let (ecm, mut node) = Ecm::linked();
    let mut known = ecm.client();
    known.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    known.expect(&response("x"));
    let mut part = ecm.client();
    part.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    part.expect("HTTP/1.1 100 Continue\r\n\r\n");
    let silent = lose(&ecm, node);
    known.send(GET);
    part.send("ab");
    let mut new = ecm.client();
    new.send(GET);
    let mut node = up(lose(&ecm, silent));
    // In the order in which they came.
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", GET] {
        let id = node.first(request);
        node.answer(id, "served");
    }
    for mut client in [known, part, new] {
        client.expect(&response("served"));
    }
}

/// When no link comes they get 503 when the time has passed, not before; so do later ones, until a link is there. Its loss is waited
/// for again.
#[test]
fn they_wait_no_longer_than_that() {
    let wait = Duration::from_millis(300);
    let ecm = Ecm::with(|config| config.link_wait = wait);
    let node = ecm.accept();
    let began = Instant::now();
    let silent = lose(&ecm, node);
    let mut client = ecm.client();
    client.send(GET);
    assert!(client.refused(503).contains("not connected"));
    assert!(began.elapsed() >= wait);
    let mut late = ecm.client();
    late.send(GET);
    late.refused(503);
    let mut node = up(lose(&ecm, silent));
    let mut served = ecm.client();
    served.send(GET);
    let id = node.first(GET);
    node.answer(id, "up");
    served.expect(&response("up"));
    let began = Instant::now();
    let _silent = lose(&ecm, node);
    let mut again = ecm.client();
    again.send(GET);
    again.refused(503);
    assert!(began.elapsed() >= wait);
}

/// After a loss that passed without anybody noticing the next one is waited for as long.
#[test]
fn each_loss_is_waited_for() {
    let (ecm, mut node) = Ecm::linked();
    for _ in 0..3 {
        let silent = lose(&ecm, node);
        let mut client = ecm.client();
        client.send(GET);
        node = up(lose(&ecm, silent));
        let id = node.first(GET);
        node.answer(id, "x");
        client.expect(&response("x"));
    }
}

/// Who has left meanwhile is not served: it has asked again elsewhere, and an old request would come late.
#[test]
fn who_leaves_meanwhile_is_not_served() {
    let (ecm, node) = Ecm::linked();
    let silent = lose(&ecm, node);
    let mut gone = ecm.client();
    gone.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(gone);
    let mut here = ecm.client();
    here.send(GET);
    let mut node = up(lose(&ecm, silent));
    let id = node.first(GET);
    node.answer(id, "here");
    here.expect(&response("here"));
    node.nothing();
}

/// A manager that stops, or takes no further clients, makes nobody wait for a link.
#[test]
fn an_ending_manager_does_not_wait() {
    let (mut ecm, node) = Ecm::linked();
    let _silent = lose(&ecm, node);
    let mut client = ecm.client();
    client.send(GET);
    ecm.command(Command::Drain);
    assert!(client.refused(503).contains("not connected"));
    drop(client);
    ecm.ended();
}

/// A node that greets and refuses in one breath, again and again, makes nobody wait longer.
#[test]
fn refusals_prolong_nothing() {
    let wait = Duration::from_millis(300);
    let ecm = Ecm::with(|config| config.link_wait = wait);
    drop(lose(&ecm, ecm.accept()));
    let mut client = ecm.client();
    client.send(GET);
    let mut refusal = Vec::new();
    hello(limits::WINDOW).encode(&mut refusal);
    Frame::Error { id: 0, code: ErrorCode::Limit, text: "full" }.encode(&mut refusal);
    let (began, mut times) = (Instant::now(), 0);
    client.stream.set_nonblocking(true).unwrap();
    while client.stream.peek(&mut [0]).is_err() {
        assert!(began.elapsed() < 20 * wait, "refused {times} times, and the client waits");
        ecm.node.accept().unwrap().0.write_all(&refusal).unwrap();
        times += 1;
    }
    client.stream.set_nonblocking(false).unwrap();
    assert!(client.refused(503).contains("not connected"));
    assert!(times > 1);
}

/// A TLS client's request that comes together with the end of its handshake waits as others do.
#[test]
fn a_request_behind_a_handshake_waits() {
    let (authority, ecm, node, address) = start(|_| {});
    let silent = lose(&ecm, node);
    let config = authority.client_config(&[&rustls::version::TLS13]);
    let mut client = TlsClient::new(connect(address), Arc::new(config), "a.example");
    // Written by rustls with what ends the handshake.
    client.tls.conn.writer().write_all(GET.as_bytes()).unwrap();
    client.greet().unwrap();
    let mut node = up(lose(&ecm, silent));
    let id = node.first(GET);
    node.answer(id, "served");
    client.expect(&response("served"));
}

/// The time that a connection may be idle for does not run while its request waits.
#[test]
fn who_waits_is_not_idle() {
    let idle = Duration::from_millis(300);
    let ecm = Ecm::with(|config| config.idle_timeout = idle);
    let silent = lose(&ecm, ecm.accept());
    let mut client = ecm.client();
    client.send(GET);
    // One that has sent nothing is told to go when its time is over, and the other one's would be, too.
    assert_eq!(ecm.client().rest(), "");
    assert_eq!(ecm.client().rest(), "");
    let mut node = up(lose(&ecm, silent));
    let id = node.first(GET);
    node.answer(id, "served");
    client.expect(&response("served"));
}

/// Who leaves while its request waits makes room for others at once.
#[test]
fn who_leaves_makes_room() {
    let ecm = Ecm::with(|config| {
        config.max_clients = 1;
        config.idle_timeout = Duration::from_millis(300);
        config.link_wait = 2 * DEADLINE;
    });
    let silent = lose(&ecm, ecm.accept());
    let mut gone = ecm.client();
    gone.send(GET);
    // The manager has looked at it.
    let _silent = lose(&ecm, silent);
    drop(gone);
    // It is taken, and told to go since it says nothing.
    assert_eq!(ecm.client().rest(), "");
}

/// A manager that stops at once tells those whose requests wait.
#[test]
fn a_manager_that_stops_tells_who_waits() {
    let (mut ecm, node) = Ecm::linked();
    let silent = lose(&ecm, node);
    let mut client = ecm.client();
    client.send(GET);
    // The manager has looked at it.
    let _silent = lose(&ecm, silent);
    ecm.command(Command::Stop);
    assert!(client.refused(503).contains("not connected"));
    ecm.ended();
}

/// A limit that tells why it is as long as it is: longer than a connection takes whose first three packets are lost, and shorter
/// than a request head may take, so that nobody is blamed for not having been read.
#[test]
fn the_limit_is_what_its_reason_says() {
    assert!((7_001..limits::HEAD_TIMEOUT).contains(&limits::LINK_WAIT));
}

/// The node's end of the link, open or not, goes away, and the manager has connected again: it knows that, and has looked at all that
/// clients had sent before. The new connection does not greet.
fn lose(ecm: &Ecm, node: Node) -> Node {
    drop(node);
    ecm.accept_raw()
}

/// What waits comes over this link.
fn up(mut node: Node) -> Node {
    node.exchange_hellos(limits::WINDOW);
    node
}
