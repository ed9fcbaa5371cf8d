//! The Autobahn test suite itself against the manager, with a node that sends each message back. Run by
//! `scripts/autobahn`, which installs it; its cases are among the everyday tests in another form
//! (`native/core/tests/websocket_cases.rs`).

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command as Program;

use common::*;
use megaphone_core::link::messages::{Fault, Part, Reader, header};
use serde_json::{Value, json};

/// What Autobahn wants to see otherwise, and why it is right as it is.
const BY_DESIGN: [(&str, &str); 9] = [
    ("1.1.1", "a message without text is no element: it comes back as a space"),
    ("1.2.", "a message of bytes is refused with 1003: XMPP is text"),
    ("6.1.1", "a message without text is no element"),
    ("6.1.2", "a message without text is no element"),
    ("9.2.", "a message of bytes is refused"),
    ("9.4.", "a message of bytes is refused"),
    ("9.6.", "a message of bytes is refused"),
    ("9.7.1", "messages without text are no elements"),
    ("9.8.", "a message of bytes is refused"),
];

/// A virtual connection at the node.
#[derive(Default)]
struct Echo {
    reader: Reader,
    /// What came of a message that is not complete.
    text: Vec<u8>,
    /// What goes back.
    back: Vec<u8>,
    credit: usize,
}

/// Sends each message back, as credit allows, and closes what has a fault.
fn echo(mut node: Node) {
    let mut echoes: HashMap<u64, Echo> = HashMap::new();
    loop {
        let id = match node.next() {
            Event::Open(id, _) => {
                echoes.insert(id, Echo { credit: limits::WINDOW as usize, ..Echo::default() });
                continue;
            }
            Event::Data(id, bytes) => {
                node.send(&Frame::Window { id, increment: bytes.len() as u32 });
                let (echo, mut bytes) = (echoes.get_mut(&id).unwrap(), &bytes[..]);
                let mut fault: Option<Fault> = None;
                while let Some(part) = echo.reader.next(&mut bytes) {
                    match part {
                        Part::Begin(length) => echo.text.extend(header(length)),
                        Part::Text { bytes, last } => {
                            echo.text.extend(bytes);
                            if last {
                                echo.back.append(&mut echo.text);
                            }
                        }
                        Part::Fault(found) => fault = Some(found),
                    }
                }
                if fault.is_some() {
                    node.close(id);
                }
                id
            }
            Event::Window(id, increment) => {
                echoes.get_mut(&id).unwrap().credit += increment as usize;
                id
            }
            Event::Close(id, _) => {
                node.close(id);
                echoes.remove(&id);
                continue;
            }
            Event::Ended => return,
            _ => continue,
        };
        let echo = echoes.get_mut(&id).unwrap();
        let count = echo.back.len().min(echo.credit);
        echo.credit -= count;
        let now: Vec<u8> = echo.back.drain(..count).collect();
        node.data(id, &now);
    }
}

#[test]
#[ignore = "needs the Autobahn test suite: scripts/autobahn"]
fn autobahn() {
    let tool = std::env::var("WSTEST").expect("WSTEST names the program");
    let cases = std::env::var("AUTOBAHN_CASES").unwrap_or_else(|_| "*".to_owned());
    let work = std::env::var("AUTOBAHN_REPORT").expect("AUTOBAHN_REPORT names a directory");
    let ecm = Ecm::with(|config| config.guard.bounds.message = 1 << 24);
    let mut node = ecm.accept_raw();
    let features = Hello::CREDIT | Hello::XMPP;
    node.send(&Frame::Hello(Hello { role: Role::Ejabberd, features, window: limits::WINDOW, name: "echo" }));
    let node = std::thread::spawn(move || echo(node));
    let spec = json!({
        "options": {"failByDrop": false},
        "outdir": work,
        "servers": [{"agent": "ecm", "url": format!("ws://{}/ws", ecm.address), "protocols": ["xmpp"],
            "options": {"version": 18}}],
        "cases": cases.split(',').collect::<Vec<_>>(),
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let file = Path::new(&work).join("spec.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    let status = Program::new(tool).args(["-m", "fuzzingclient", "-s"]).arg(file).status().unwrap();
    assert!(status.success());
    let index = std::fs::read(Path::new(&work).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let (mut passed, mut by_design, mut failed) = (0, 0, Vec::new());
    for (case, result) in index["ecm"].as_object().unwrap() {
        let is_good = |key: &str| matches!(result[key].as_str(), Some("OK" | "NON-STRICT" | "INFORMATIONAL"));
        let expected = BY_DESIGN.iter().find(|(prefix, _)| case.starts_with(prefix));
        match expected {
            _ if is_good("behavior") && is_good("behaviorClose") => passed += 1,
            Some((_, why)) => {
                println!("{case}: {why}");
                by_design += 1;
            }
            None => failed.push(format!("{case}: {result}")),
        }
    }
    println!("{passed} passed, {by_design} differ by design, {} failed", failed.len());
    assert!(failed.is_empty() && passed > 0, "{failed:#?}");
    drop(ecm);
    node.join().unwrap();
}
