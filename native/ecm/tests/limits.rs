//! Time limits and numbers.

#![allow(clippy::unwrap_used)]

mod common;
use std::time::Duration;

use common::*;

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn slow_heads_and_bodies_get_408() {
    let ecm = Ecm::with(|config| {
        config.head_timeout = SHORT;
        config.body_timeout = SHORT;
    });
    let mut node = ecm.accept();
    let mut head = ecm.client();
    head.send("GET / HTTP/1.1\r\n");
    assert!(head.refused(408).contains("head"));
    let mut body = ecm.client();
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx");
    assert!(body.refused(408).contains("body"));
    node.nothing();
    // One that streams is known to the node.
    let mut stream = ecm.client();
    let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", limits::SMALL_BODY + 1);
    stream.send(&request);
    let id = node.first(&request);
    assert_eq!(node.next(), Event::Close(id, CloseReason::Timeout));
    assert!(stream.refused(408).contains("body"));
}

#[test]
fn only_idle_connections_time_out() {
    let ecm = Ecm::with(|config| {
        config.idle_timeout = SHORT;
        config.head_timeout = SHORT;
        config.body_timeout = SHORT;
        config.send_timeout = SHORT;
    });
    let mut node = ecm.accept();
    let (mut idle, mut fresh, mut polling, mut tunnel) =
        (ecm.client(), ecm.client(), ecm.client(), ecm.client());
    polling.send(GET);
    let poll = node.first(GET);
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let open = node.first("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    node.tunnel(open);
    idle.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    idle.expect(&response("x"));
    assert_eq!(fresh.rest(), "");
    assert_eq!(idle.rest(), "");
    assert_eq!(node.next(), Event::Close(id, CloseReason::Timeout));
    // Several times the limit has passed for these two: they live.
    node.answer(poll, "y");
    polling.expect(&response("y"));
    tunnel.send("z");
    node.request(open, "z");
}

#[test]
fn a_client_that_takes_nothing_is_closed() {
    let ecm = Ecm::with(|config| config.send_timeout = SHORT);
    let mut node = ecm.accept();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    let chunk = vec![b'x'; limits::DATA_CHUNK];
    let mut credit = limits::WINDOW as usize;
    loop {
        if credit >= chunk.len() {
            node.send(&Frame::Data { id, payload: &chunk });
            credit -= chunk.len();
            continue;
        }
        match node.next() {
            Event::Window(_, increment) => credit += increment as usize,
            other => {
                assert_eq!(other, Event::Close(id, CloseReason::Timeout));
                break;
            }
        }
    }
}

#[test]
fn further_clients_wait() {
    let ecm = Ecm::with(|config| config.max_clients = 2);
    let mut node = ecm.accept();
    let (mut first, mut second) = (ecm.client(), ecm.client());
    let mut ids = Vec::new();
    for client in [&mut first, &mut second] {
        client.send(GET);
        ids.push(node.first(GET));
    }
    let mut third = ecm.client();
    third.send(GET);
    node.nothing();
    drop(first);
    assert_eq!(node.next(), Event::Close(ids[0], CloseReason::Unanswered));
    node.first(GET);
}

#[test]
fn little_memory_refuses_new_requests() {
    let ecm = Ecm::with(|config| config.max_held = 60_000);
    let mut node = ecm.accept();
    let mut holder = ecm.client();
    holder.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 64000\r\n\r\n");
    holder.send(vec![b'x'; 63_000]);
    assert!(holder.refused(503).contains("busy"));
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}
