//! Upgrades: the real program is replaced by another process of it, again and again, while clients connect and ask all
//! the time. No connection may be refused, no request lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use common::program::*;
use common::*;
use rustix::process::Signal;

/// Processes that follow each other.
const UPGRADES: usize = 4;
/// Clients of each kind: a connection for each request, and one for as many as it serves.
const CLIENTS: usize = 4;

/// A node that answers each GET at once, on as many links as come; answers its address.
fn answering_node() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut node = Node::new(stream.unwrap());
            std::thread::spawn(move || {
                node.send(&hello(limits::WINDOW));
                loop {
                    match node.next() {
                        Event::Data(id, bytes) => {
                            assert_eq!(String::from_utf8_lossy(&bytes), GET);
                            node.send(&Frame::Window { id, increment: bytes.len() as u32 });
                            node.answer(id, "x");
                        }
                        Event::Close(id, _) => node.close(id),
                        Event::Ended => return,
                        _ => {}
                    }
                }
            });
        }
    });
    address
}

/// Clients that ask until they are told to end; each answers what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2 * CLIENTS)
            .map(|at| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                std::thread::spawn(move || ask(address, at % 2 == 0, &stop, &answered))
            })
            .collect();
        Self { stop, answered, threads }
    }

    /// Waits until so many further requests were answered, or a client has failed.
    fn more(&self, count: usize) {
        let until = self.answered.load(Ordering::Relaxed) + count;
        while self.answered.load(Ordering::Relaxed) < until
            && !self.threads.iter().any(JoinHandle::is_finished)
        {
            std::thread::yield_now();
        }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn ask(address: SocketAddr, keeps: bool, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(address).map_err(|error| format!("refused: {error}"))?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut stream = BufReader::new(stream);
        for at in 0.. {
            let closes = exchange(&mut stream).map_err(|error| format!("request {at} is lost: {error}"))?;
            answered.fetch_add(1, Ordering::Relaxed);
            if closes || !keeps || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

/// One request and its whole answer; whether the connection ends with it.
fn exchange(stream: &mut BufReader<TcpStream>) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    stream.get_mut().write_all(GET.as_bytes()).map_err(text)?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).map_err(text)? == 0 {
            return Err(format!("the connection ended after {head:?}"));
        }
    }
    let mut body = [0];
    stream.read_exact(&mut body).map_err(text)?;
    if head.starts_with("HTTP/1.1 200 OK\r\n") && body == *b"x" {
        Ok(head.contains("\r\nConnection: close\r\n"))
    } else {
        Err(format!("{head:?}"))
    }
}

/// Replaces the process again and again by what `next` starts.
fn upgrade(address: SocketAddr, mut old: Running, mut next: impl FnMut() -> Running) {
    old.wait_for("takes clients");
    let load = Load::start(address);
    for _ in 0..UPGRADES {
        load.more(500);
        let mut new = next();
        new.wait_for("takes clients");
        load.more(500);
        signal(&old.0, Signal::TERM);
        assert!(old.0.wait().unwrap().success());
        let mut log = String::new();
        old.1.read_to_string(&mut log).unwrap();
        assert!(!log.contains("cut off"), "{log}");
        old = new;
    }
    load.more(500);
    assert!(load.end() > 1_000 * UPGRADES);
}

/// Processes that share a port by `reuse_port` follow each other without a gap.
#[test]
fn processes_on_one_port_follow_each_other() {
    let node = answering_node().to_string();
    let file = Config::write("reuse_port = true\n");
    let path = file.0.to_str().unwrap().to_owned();
    let arguments =
        |listen: &str| ["--config", &path, "--server", &node, "--listen", listen].map(str::to_owned);
    let start = |listen: &str| {
        let arguments = arguments(listen);
        Running::start(&arguments.each_ref().map(String::as_str))
    };
    let mut first = start("127.0.0.1:0");
    let address = first.wait_for("listening on ");
    upgrade(address.parse().unwrap(), first, || start(&address));
}

/// Processes that are handed one listening socket, by systemd's protocol, follow each other without a gap; the last
/// one gets it as an inherited descriptor that is named by a number alone.
#[test]
fn processes_with_one_socket_follow_each_other() {
    let node = answering_node().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = |environment: &str| {
        let script = format!("exec 3<&0 </dev/null; {environment} exec \"$0\" --server {node}");
        let mut command = Program::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_megaphone-ecm")]);
        command.stdin(OwnedFd::from(listener.try_clone().unwrap())).stderr(Stdio::piped());
        let mut running = Running::spawn(&mut command);
        assert_eq!(running.wait_for("listening on "), address.to_string());
        running
    };
    let mut starts = 0;
    upgrade(address, start("LISTEN_FDS=1 LISTEN_PID=$$"), || {
        starts += 1;
        start(if starts < UPGRADES { "LISTEN_FDS=1 LISTEN_PID=$$" } else { "LISTEN_FDS=1 LISTEN_PID=" })
    });
}

/// A held poll outlives the upgrade: the old process answers it, while the new one has the port.
#[test]
fn a_held_poll_outlives_the_upgrade() {
    let nodes = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = nodes.local_addr().unwrap().to_string();
    let file = Config::write("reuse_port = true\n");
    let start = |listen: &str| {
        let mut running =
            Running::start(&["--config", file.0.to_str().unwrap(), "--server", &server, "--listen", listen]);
        let address = running.wait_for("listening on ");
        let mut node = Node::new(nodes.accept().unwrap().0);
        node.exchange_hellos(limits::WINDOW);
        running.wait_for("takes clients");
        (running, address, node)
    };
    let (mut old, address, mut old_node) = start("127.0.0.1:0");
    let mut poll = Client::new(TcpStream::connect(&address).unwrap());
    poll.send(GET);
    let id = old_node.first(GET);
    let (_new, _, mut new_node) = start(&address);
    signal(&old.0, Signal::TERM);
    old.wait_for("draining: 1 clients");
    // New clients may have to ask a second time, and are served by the new process.
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut client = Client::new(TcpStream::connect(&address).unwrap());
            client.send(GET);
            client.expect(&response("new"));
        });
        let id = new_node.first(GET);
        new_node.answer(id, "new");
        asked.join().unwrap();
    });
    old_node.answer(id, "old");
    poll.expect("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nold");
    assert_eq!(poll.rest(), "");
    drop(poll);
    assert!(old.0.wait().unwrap().success());
}

/// What cannot be used as a listening socket is refused with the reason.
#[test]
fn sockets_of_no_use_are_refused() {
    for (count, word) in [("1", "LISTEN_FDS"), ("2", "ListenStream=")] {
        let mut command = program(&[]);
        // Descriptor 3 is none, or one of the test's own that is no socket.
        let output = command.env("LISTEN_FDS", count).env_remove("LISTEN_PID").output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(word), "{text}");
    }
}

/// A configuration file that goes away with its test.
struct Config(PathBuf);

impl Config {
    fn write(text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("megaphone-ecm-upgrade-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
