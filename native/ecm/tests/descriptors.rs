//! Out of descriptors. Alone in its program, since the limit is the whole process's.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn without_descriptors_clients_wait() {
    let ecm = Ecm::with(|config| config.max_clients = 1_000);
    let mut node = ecm.accept();
    // Descriptors are shared with this end: each client takes two. These are opened while there are enough.
    let mut clients: Vec<Client> = (0..40).map(|_| ecm.client()).collect();
    for client in &mut clients {
        client.send(GET);
        let id = node.first(GET);
        node.answer(id, "x");
        client.expect(&response("x"));
    }
    // The limit is the next number to be given out plus one: this end can connect, the manager cannot accept.
    let next = std::fs::File::open("/dev/null").unwrap();
    let limit = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap() + 1;
    drop(next);
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum }).unwrap();
    let mut waiting = ecm.client();
    waiting.send(GET);
    node.nothing();
    // The manager lives: the others are served.
    clients[7].send(GET);
    let id = match node.next() {
        Event::Data(id, _) => id,
        other => panic!("{other:?}"),
    };
    node.answer(id, "y");
    clients[7].expect(&response("y"));
    node.nothing();
    // One leaves, and the one that waited is served.
    clients.truncate(38);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match node.next() {
            Event::Close(..) => seen.push(0),
            Event::Open(id, _) => {
                node.request(id, GET);
                node.answer(id, "z");
                seen.push(id);
            }
            other => panic!("{other:?}"),
        }
    }
    waiting.expect(&response("z"));
    setrlimit(Resource::Nofile, before).unwrap();
}
