//! Requests that come while the last link is lost wait for another one, for a while.

#![allow(clippy::unwrap_used)]

mod common;
use std::time::{Duration, Instant};

use common::*;
use megaphone_core::limits;
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
