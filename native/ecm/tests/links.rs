//! Several links and several servers, and links that demand a secret.

#![allow(clippy::unwrap_used)]

mod common;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::program::{Running, signal};
use common::*;
use megaphone_core::link::{Credentials, Handshake, Secret};
use megaphone_ecm::Server;
use rustix::process::Signal;

const SECRET: &[u8] = b"what both of them know";

/// A manager with two links to its first server, and a second server with two.
fn two_servers() -> (Ecm, TcpListener) {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let ecm = Ecm::with(|config| {
        config.servers.push(Server::Tcp(address));
        config.links = 2;
    });
    (ecm, other)
}

fn greeted(mut node: Node) -> Node {
    node.greet(limits::WINDOW);
    node
}

/// The four links, those of the second server last.
fn four_links(ecm: &Ecm, other: &TcpListener) -> Vec<Node> {
    let mut nodes = vec![ecm.accept(), ecm.accept()];
    nodes.extend((0..2).map(|_| greeted(Node::new(other.accept().unwrap().0))));
    nodes
}

/// Clients whose requests are with the nodes: as many as there are links, one on each.
fn one_on_each(ecm: &Ecm, nodes: &mut [Node]) -> Vec<(Client, u64)> {
    let mut clients: Vec<Client> = nodes.iter().map(|_| ecm.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    let ids: Vec<u64> = nodes.iter_mut().map(|node| node.first(GET)).collect();
    // Whose is whose: the answers tell.
    for (number, (node, id)) in nodes.iter_mut().zip(&ids).enumerate() {
        node.answer(*id, &number.to_string());
    }
    let mut found: Vec<(String, Client)> = Vec::new();
    for mut client in clients {
        let mut got = vec![0; response("0").len()];
        std::io::Read::read_exact(&mut client.stream, &mut got).unwrap();
        found.push((String::from_utf8(got).unwrap(), client));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found.into_iter().map(|(_, client)| client).zip(ids).collect()
}

#[test]
fn new_clients_go_to_the_link_with_the_fewest() {
    let (ecm, other) = two_servers();
    let mut nodes = four_links(&ecm, &other);
    let mut held = one_on_each(&ecm, &mut nodes);
    // A client stays on its link: whoever asks again is served there.
    for ((client, id), node) in held.iter_mut().zip(&mut nodes) {
        client.send(GET);
        node.request(*id, GET);
        node.answer(*id, "again");
        client.expect(&response("again"));
    }
    // One goes; the next one that comes takes its place.
    let (client, id) = held.remove(2);
    drop(client);
    assert_eq!(nodes[2].next(), Event::Close(id, CloseReason::Normal));
    nodes[2].close(id);
    nodes[2].nothing();
    let mut client = ecm.client();
    client.send(GET);
    let id = nodes[2].first(GET);
    nodes[2].answer(id, "x");
    client.expect(&response("x"));
}

#[test]
fn clients_of_a_lost_link_go_on_over_another_and_the_others_do_not_notice() {
    let (ecm, other) = two_servers();
    let mut nodes = four_links(&ecm, &other);
    let mut held = one_on_each(&ecm, &mut nodes);
    let (mut waiting, mut idle) = (ecm.client(), held.remove(3).0);
    waiting.send(GET);
    // It is on one of the links that have as few as the others: on the one that has something to read.
    let mut place = None;
    while place.is_none() {
        place = nodes.iter_mut().position(|node| {
            node.stream.set_nonblocking(true).unwrap();
            let there = node.stream.peek(&mut [0; 1]).is_ok();
            node.stream.set_nonblocking(false).unwrap();
            there
        });
        std::thread::yield_now();
    }
    let place = place.unwrap();
    let id = nodes[place].first(GET);
    // The second server is gone with both links.
    drop(other);
    let lost: Vec<Node> = nodes.drain(2..).collect();
    drop(lost);
    if place >= 2 {
        assert!(waiting.refused(503).contains("lost"));
    } else {
        nodes[place].answer(id, "kept");
        waiting.expect(&response("kept"));
    }
    // The idle one goes on over a link of the first server, which of both does not matter.
    idle.send(GET);
    let busy: Vec<usize> = (0..2).filter(|at| *at != place).collect();
    let at = if busy.len() == 1 { busy[0] } else { 0 };
    let id = nodes[at].first(GET);
    nodes[at].answer(id, "on");
    idle.expect(&response("on"));
    for ((client, id), node) in held.iter_mut().take(2).zip(&mut nodes) {
        client.send(GET);
        node.request(*id, GET);
        node.answer(*id, "there");
        client.expect(&response("there"));
    }
}

#[test]
fn a_node_that_does_not_read_holds_up_its_own_clients_only() {
    let (ecm, mut node) = {
        let ecm = Ecm::with(|config| config.links = 2);
        let nodes = (ecm.accept(), ecm.accept());
        (ecm, nodes)
    };
    let mut first = ecm.client();
    first.send(GET);
    let id = node.0.first(GET);
    node.0.answer(id, "1");
    first.expect(&response("1"));
    let mut second = ecm.client();
    second.send(GET);
    let other = node.1.first(GET);
    node.1.answer(other, "2");
    second.expect(&response("2"));
    // The first link has a tunnel whose node grants everything and reads nothing.
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    first.send(upgrade);
    node.0.request(id, upgrade);
    node.0.data(id, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    node.0.tunnel(id);
    node.0.send(&Frame::Window { id, increment: 1 << 30 });
    first.expect("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    first.stream.set_nonblocking(true).unwrap();
    let bytes = vec![b'x'; 65_536];
    let mut sent = 0;
    let full = Instant::now();
    // Until nothing is taken for a while: buffers of both sockets and the link's output are full.
    let mut last = full;
    while last.elapsed() < Duration::from_millis(500) {
        match std::io::Write::write(&mut first.stream, &bytes) {
            Ok(count) => {
                sent += count;
                last = Instant::now();
            }
            Err(_) => std::thread::yield_now(),
        }
        assert!(full.elapsed() < DEADLINE, "{sent} bytes were taken for a node that reads none");
    }
    second.send(GET);
    node.1.request(other, GET);
    node.1.answer(other, "fast");
    second.expect(&response("fast"));
}

/// The end of a link is noticed whether it is told together with its last bytes, or later; those bytes count, and so do ones
/// that fill the manager's buffer exactly.
#[test]
fn an_end_is_never_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let mut ecm = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    let address = ecm.wait_for("listening on ");
    // The manager's buffer has 65,536 bytes, a data frame 13 more than its payload.
    let full = 65_536 - 2 * 13 - (response(&"x".repeat(10_000)).len() - 10_000);
    for round in 0..16 {
        let mut node = Node::new(listener.accept().unwrap().0);
        node.greet(limits::WINDOW);
        let mut client = Client::new(TcpStream::connect(&address).unwrap());
        client.send(GET);
        let id = node.first(GET);
        let text = response(&"x".repeat([1, full - 1, full, full + 1][round % 4]));
        let mut out = Vec::new();
        for payload in text.as_bytes().chunks(limits::MAX_PAYLOAD / 2) {
            Frame::Data { id, payload }.encode(&mut out);
        }
        assert!(round % 4 != 2 || out.len() == 65_536);
        let together = round < 8;
        if together {
            signal(&ecm.0, Signal::STOP);
        }
        node.send_bytes(&out);
        if !together {
            client.expect(&text);
        }
        let ended = Instant::now();
        drop(node);
        if together {
            signal(&ecm.0, Signal::CONT);
        }
        assert!(client.rest() == if together { &text[..] } else { "" });
        assert_eq!(ecm.wait_for(" down: "), "it closed the connection");
        // Not by the next ping.
        assert!(ended.elapsed() < Duration::from_millis(limits::LINK_PING.into()));
    }
}

/// The node's part of the handshake with this secret; what the manager says when it is over.
fn authenticate(ecm: &Ecm, secret: &[u8]) -> (Node, Option<Event>) {
    let (stream, _) = ecm.node.accept().unwrap();
    let credentials = Credentials { secret: Secret::new(secret).unwrap(), nonce: [7; 32] };
    let own = Hello { role: Role::Ejabberd, features: Hello::CREDIT, window: limits::WINDOW, name: "test" };
    let mut handshake = Handshake::new(own, Some(credentials));
    let mut node = Node::authenticating(stream);
    let mut out = Vec::new();
    handshake.greet(&mut out);
    node.send_bytes(&out);
    loop {
        let mut answer = Vec::new();
        let open = match node.take_frame() {
            Some(Frame::Hello(hello)) => handshake.hello(&hello).unwrap(),
            Some(Frame::Auth(payload)) => match handshake.auth(payload, &mut answer) {
                Ok(open) => open,
                Err(_) => return (node, None),
            },
            Some(Frame::Error { id, code, text }) => {
                let event = Event::Error(id, code, text.to_owned());
                return (node, Some(event));
            }
            other => panic!("{other:?}"),
        };
        node.send_bytes(&answer);
        if open.is_some() {
            node.admit();
            return (node, None);
        }
    }
}

#[test]
fn a_link_with_a_secret_opens_to_a_node_that_knows_it() {
    let ecm = Ecm::with(|config| config.link_secret = Some(Secret::new(SECRET).unwrap()));
    let (mut node, refused) = authenticate(&ecm, SECRET);
    assert_eq!(refused, None);
    node.nothing();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "known");
    client.expect(&response("known"));
}

#[test]
fn a_node_without_the_secret_gets_no_client() {
    let ecm = Ecm::with(|config| config.link_secret = Some(Secret::new(SECRET).unwrap()));
    // One that sends its proof at once, whatever the manager's own says.
    let (stream, _) = ecm.node.accept().unwrap();
    let mut node = Node::authenticating(stream);
    let own = Hello { role: Role::Ejabberd, features: 3, window: limits::WINDOW, name: "test" };
    node.send(&Frame::Hello(own));
    node.send(&Frame::Auth(&[&[1][..], &[0; 32]].concat()));
    node.send(&Frame::Auth(&[&[2][..], &[0; 32]].concat()));
    let refusal = loop {
        match node.take_frame() {
            Some(Frame::Error { code, text, .. }) => break (code, text.to_owned()),
            Some(Frame::Hello(_) | Frame::Auth(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal.0, ErrorCode::Auth);
    assert!(refusal.1.contains("another secret"), "{}", refusal.1);
    let mut client = ecm.client();
    client.send(GET);
    assert!(client.refused(503).contains("not connected"));
}

#[test]
fn a_node_without_any_secret_is_told_what_is_missing() {
    let ecm = Ecm::with(|config| config.link_secret = Some(Secret::new(SECRET).unwrap()));
    let (stream, _) = ecm.node.accept().unwrap();
    let mut node = Node::authenticating(stream);
    node.send(&hello(limits::WINDOW));
    loop {
        match node.take_frame() {
            Some(Frame::Error { code: ErrorCode::Auth, text, .. }) => {
                assert!(text.contains("the connection manager demands a secret"), "{text}");
                break;
            }
            Some(Frame::Hello(_) | Frame::Auth(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A node drains one of two links: its client stays there, new ones go to the other link although it has more, and when that one
/// drains as well they are refused. A link that comes anew takes clients.
#[test]
fn new_clients_avoid_links_that_drain() {
    let ecm = Ecm::with(|config| config.links = 2);
    let mut nodes = vec![ecm.accept(), ecm.accept()];
    let mut held = one_on_each(&ecm, &mut nodes);
    nodes[0].send(&Frame::Drain);
    nodes[0].nothing();
    let mut other = ecm.client();
    other.send(GET);
    let id = nodes[1].first(GET);
    nodes[1].answer(id, "x");
    other.expect(&response("x"));
    let (mut first, id) = held.remove(0);
    drop(held);
    first.send(GET);
    nodes[0].request(id, GET);
    nodes[0].answer(id, "still");
    first.expect(&response("still"));
    nodes[1].send(&Frame::Drain);
    // Two closes of clients that have gone come before the pong.
    while !matches!(nodes[1].next(), Event::Close(..)) {}
    nodes[1].nothing();
    let mut refused = ecm.client();
    refused.send(GET);
    refused.refused(503);
    drop(nodes.remove(1));
    let mut again = ecm.accept();
    let mut client = ecm.client();
    client.send(GET);
    let id = again.first(GET);
    again.answer(id, "new");
    client.expect(&response("new"));
}
