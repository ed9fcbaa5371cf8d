//! Attacks on the door, each while an ordinary client goes on: its requests are answered, and in time.
//!
//! The worst one in a hundred of its answers must come within [`PATIENCE`]; the value is printed (`--nocapture`).

#![allow(clippy::unwrap_used)]

mod common;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;

/// Generous: other work runs on the same machine.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long an attack lasts at least, and how many requests the ordinary client makes in it.
const ATTACK: Duration = Duration::from_secs(1);
const REQUESTS: usize = 300;

/// A manager for an ordinary client that makes more requests than one would.
fn manager(change: impl FnOnce(&mut megaphone_ecm::Config)) -> Ecm {
    Ecm::with(|config| {
        config.guard.bounds.requests = u16::MAX;
        change(config);
    })
}

/// A node that answers every request, until its link ends: what follows the last `\r\n\r\n` of data is ignored.
fn answering(mut node: Node) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let (mut heads, mut requests) = (HashMap::<u64, Vec<u8>>::new(), 0);
        loop {
            match node.next() {
                Event::Open(id, _) => drop(heads.insert(id, Vec::new())),
                Event::Data(id, bytes) => {
                    let mut out = Vec::new();
                    Frame::Window { id, increment: bytes.len() as u32 }.encode(&mut out);
                    let head = heads.entry(id).or_default();
                    head.extend_from_slice(&bytes);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        requests += 1;
                        Frame::Data { id, payload: response("x").as_bytes() }.encode(&mut out);
                        Frame::Ready { id, mode: ReadyMode::Request }.encode(&mut out);
                    }
                    // The manager may have stopped: its end of the link is read next.
                    let _ = node.stream.write_all(&out);
                }
                Event::Close(id, _) => {
                    heads.remove(&id);
                    let mut out = Vec::new();
                    Frame::Close { id, reason: CloseReason::Normal }.encode(&mut out);
                    let _ = node.stream.write_all(&out);
                }
                Event::Ended => return requests,
                Event::Window(..) | Event::Error(..) | Event::Pong(_) | Event::Hello(_) | Event::Ping => {}
            }
        }
    })
}

/// Runs the attack until the ordinary client has made its requests, and the attack at least once; prints and checks how
/// long these took. The attack gets the number of the round. Answers how many
/// requests were made by ordinary clients.
fn under(name: &str, ecm: &Ecm, mut client: Client, attack: impl FnMut(usize) + Send) -> u64 {
    let (over, first) = (AtomicBool::new(false), AtomicBool::new(false));
    let made = std::thread::scope(|scope| {
        let (over, first) = (&over, &first);
        let mut attack = attack;
        let attacker = scope.spawn(move || {
            // Also when the attack itself fails.
            let _done = Done(first);
            for round in 0.. {
                attack(round);
                first.store(true, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let (mut times, began, ends) = (Vec::new(), Instant::now(), Done(over));
        // An attack whose first round is long is measured to the end of that.
        while times.len() < REQUESTS || began.elapsed() < ATTACK || !first.load(Ordering::Relaxed) {
            let start = Instant::now();
            client.send(GET);
            client.expect(&response("x"));
            times.push(start.elapsed());
        }
        drop(ends);
        times.sort();
        let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!(
            "{name}: {} requests, median {median:?}, p99 {late:?}, most {:?}",
            times.len(),
            times[times.len() - 1]
        );
        assert!(late < PATIENCE, "{name}: {late:?}");
        attacker.join().unwrap();
        times.len() as u64
    });
    // And so does one that comes now.
    let mut late = ecm.client();
    late.send(GET);
    late.expect(&response("x"));
    made + 1
}

/// Says that something is over when it is dropped, also by a panic: the other thread must not go on for ever.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Slow-loris: 500 connections that send a head, or a body, byte by byte and never to its end; each is cut off.
#[test]
fn slow_heads_and_bodies() {
    let ecm = manager(|config| {
        config.head_timeout = Duration::from_secs(1);
        config.body_timeout = Duration::from_secs(1);
    });
    let node = answering(ecm.accept());
    let mut slow: Vec<Client> = (0..500).map(|_| ecm.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
        client.send(if number % 2 == 0 { "GET / HTTP/1.1\r\nX: " } else { body });
    }
    let made = under("slow heads and bodies", &ecm, ecm.client(), |_| {
        for client in slow.iter_mut().step_by(2) {
            // It may be cut off by now.
            let _ = client.stream.write(b"x");
        }
    });
    for (number, mut client) in slow.into_iter().enumerate() {
        let answer = client.rest();
        // What was still sent when the end came may have cost the answer.
        assert!(answer.starts_with("HTTP/1.1 408") || number % 2 == 0 && answer.is_empty(), "{answer}");
    }
    drop(ecm);
    // Nothing of the attack has reached the node.
    assert_eq!(node.join().unwrap(), made);
}

/// Readers that never read: 20 of them ask again and again and take nothing, while others are answered.
#[test]
fn readers_that_never_read() {
    let ecm = manager(|config| config.send_timeout = Duration::from_secs(1));
    let node = answering(ecm.accept());
    let many = GET.repeat(2_000);
    let mut deaf: Vec<Client> = (0..20).map(|_| ecm.client()).collect();
    for client in &deaf {
        client.stream.set_nonblocking(true).unwrap();
    }
    under("readers that never read", &ecm, ecm.client(), |_| {
        for client in &mut deaf {
            let _ = client.stream.write(many.as_bytes());
        }
    });
    drop(deaf);
    drop(ecm);
    node.join().unwrap();
}

/// 10,000 malformed requests of every kind: none reaches the node, each is answered and closed.
#[test]
fn malformed_requests() {
    let ecm = manager(|_| {});
    let node = answering(ecm.accept());
    let bad = [
        "\x16\x03\x01",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n\r\n",
    ];
    let ordinary = ecm.client();
    let made = under("10,000 malformed requests", &ecm, ordinary, |round| {
        if round > 0 {
            return;
        }
        for number in 0..10_000 {
            let mut client = ecm.client();
            client.send(bad[number % bad.len()]);
            let answer = client.rest();
            assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer:?}");
        }
    });
    drop(ecm);
    // Nothing of the attack has reached the node.
    assert_eq!(node.join().unwrap(), made);
}

/// A flood of new connections that do nothing: beyond the pace they wait in the kernel.
#[test]
fn a_flood_of_new_connections() {
    let ecm = manager(|config| config.guard.new_per_second = 500);
    let node = answering(ecm.accept());
    let ordinary = ecm.client();
    let made = under("a flood of new connections", &ecm, ordinary, |_| {
        for _ in 0..50 {
            drop(ecm.client());
        }
    });
    drop(ecm);
    // Nothing of the attack has reached the node.
    assert_eq!(node.join().unwrap(), made);
}

/// A flood from one address far beyond its limit: 429 for it, nothing for the others.
#[test]
fn a_flood_from_one_address() {
    let ecm = manager(|config| {
        config.guard.exempt_loopback = false;
        config.guard.addresses.clients = 50;
        config.guard.addresses.new_per_second = 50;
    });
    let node = answering(ecm.accept());
    let ordinary = ecm.client_from([127, 0, 0, 9]);
    let (mut held, mut refused) = (Vec::new(), 0);
    under("a flood from one address", &ecm, ordinary, |_| {
        for _ in 0..20 {
            let client = ecm.client_from([127, 0, 0, 2]);
            client.stream.set_nonblocking(true).unwrap();
            held.push(client);
        }
        held.retain_mut(|client| {
            let mut first = [0; 12];
            let is_refused = client.stream.read(&mut first).is_ok();
            refused += usize::from(is_refused);
            assert!(!is_refused || first == *b"HTTP/1.1 429" || first == [0; 12]);
            !is_refused
        });
    });
    assert!(refused > 0 || held.len() <= 50, "{refused}, {}", held.len());
    drop(held);
    drop(ecm);
    node.join().unwrap();
}
