//! The units of `docs/systemd`, judged by systemd's own tools, and the program under what starts services by their sockets.
//! Where systemd is not installed there is nothing to test.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::program::Running;
use common::*;

const UNITS: [&str; 3] = ["megaphone-ecm.service", "megaphone-ecm@.service", "megaphone-ecm.socket"];

/// What `systemd-analyze security` gives to a service that gives up all that it does not need: 2.0 at most of 10. Without
/// any of that it is 9.6.
const EXPOSURE: &str = "20";

fn is_installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{tool} is not installed: nothing is tested");
    }
    found
}

/// The units in a directory of their own, with the program where it was built; removed when dropped.
struct Units(PathBuf);

impl Units {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("megaphone-ecm-units-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/systemd");
        for unit in UNITS {
            let text = std::fs::read_to_string(from.join(unit)).unwrap();
            let text =
                text.replace("/usr/bin/megaphone-ecm ", concat!(env!("CARGO_BIN_EXE_megaphone-ecm"), " "));
            // An instance of the template is what runs.
            std::fs::write(dir.join(unit.replace('@', "@1")), text).unwrap();
        }
        Self(dir)
    }

    /// Has systemd judge a unit: whether it is content, and what it said.
    fn analyze(&self, arguments: &[&str], unit: &str) -> (bool, String) {
        let file = self.0.join(unit.replace('@', "@1"));
        let output = Command::new("systemd-analyze").args(arguments).arg(file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// systemd takes every line of each unit and finds the program; a line that it does not know would be found.
#[test]
fn units_are_valid() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let units = Units::new("valid");
    for unit in UNITS {
        let (fine, said) = units.analyze(&["verify"], unit);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("megaphone")).collect();
        assert!(fine && ours.is_empty(), "{unit}: {said}");
    }
    let file = units.0.join(UNITS[0]);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[Service]", "[Service]\nNoSuchKey=yes")).unwrap();
    assert!(units.analyze(&["verify"], UNITS[0]).1.contains("NoSuchKey"));
}

/// The services are as confined as they are meant to be.
#[test]
fn services_are_confined() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let units = Units::new("confined");
    let judge = ["security", "--offline=true", "--threshold", EXPOSURE];
    for unit in UNITS.iter().filter(|unit| unit.ends_with(".service")) {
        let (fine, said) = units.analyze(&judge, unit);
        assert!(fine, "{unit}: {said}");
    }
    let file = units.0.join(UNITS[0]);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("SystemCallFilter=@system-service\n", "").replace("PrivateDevices=yes\n", ""),
    )
    .unwrap();
    assert!(!units.analyze(&judge, UNITS[0]).0);
}

/// Started by the first client at a socket of systemd's, the program takes that client, and tells when it is ready.
#[test]
fn a_socket_starts_the_program() {
    if !is_installed("systemd-socket-activate") {
        return;
    }
    let units = Units::new("socket");
    let notify = units.0.join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = node.local_addr().unwrap().to_string();
    // A port that was free a moment ago: the tool does not tell which one it has if it is to choose.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut running = Running::spawn(
        Command::new("systemd-socket-activate")
            .args([
                "--listen",
                &address.to_string(),
                "--setenv",
                &format!("NOTIFY_SOCKET={}", notify.display()),
            ])
            .args([env!("CARGO_BIN_EXE_megaphone-ecm"), "--server", &server])
            .stdin(Stdio::null())
            .stderr(Stdio::piped()),
    );
    running.wait_for("Listening on ");
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    client.send(GET);
    assert_eq!(running.wait_for("listening on "), address.to_string());
    let mut node = Node::new(node.accept().unwrap().0);
    node.exchange_hellos(limits::WINDOW);
    let mut told = [0; 256];
    let count = manager.recv(&mut told).unwrap();
    assert!(String::from_utf8_lossy(&told[..count]).lines().any(|line| line == "READY=1"));
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}
