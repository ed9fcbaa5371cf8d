//! The program itself, started.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_megaphone-ecm"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn fails(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = program(arguments).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// A started program, and what it writes to its log.
pub struct Running(pub Child, pub BufReader<std::process::ChildStderr>);

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(&mut program(arguments))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self(child, log)
    }

    /// Reads the log up to a line with this text; answers what follows the text.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("the program ended without saying {text:?}");
    }

    /// Ends it; what it has said that was not read yet.
    pub fn rest(&mut self) -> String {
        self.0.kill().unwrap();
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}
