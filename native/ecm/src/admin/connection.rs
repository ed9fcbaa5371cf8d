//! One connection at the admin address: one request of a bounded size, one answer, and the end, within a time limit.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use megaphone_core::http::{self, response};
use megaphone_core::limits;
use mio::net::TcpStream;

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) token: usize,
    /// It is dropped then, whatever it has done.
    pub(super) until: Instant,
    input: Vec<u8>,
    scanned: usize,
    /// Empty until the request was read.
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, token: usize) -> Self {
        Self {
            stream,
            token,
            until: Instant::now() + Duration::from_millis(limits::ADMIN_TIMEOUT.into()),
            input: Vec::new(),
            scanned: 0,
            output: Vec::new(),
            written: 0,
        }
    }

    /// Reads and writes as far as the socket goes; `answer` is asked for the path once. Answers whether the connection
    /// stays.
    pub(super) fn step(&mut self, answer: impl FnOnce(&str) -> (u16, &'static str, String)) -> bool {
        if self.output.is_empty() {
            match self.read(answer) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        if self.written < self.output.len() && self.write().is_err() {
            return false;
        }
        if self.written < self.output.len() {
            return true;
        }
        // The client closes first, so that what it sent besides does not reset the answer away.
        self.stream.shutdown(Shutdown::Write).is_ok() && self.drop_input()
    }

    /// Whether there is an answer now.
    fn read(&mut self, answer: impl FnOnce(&str) -> (u16, &'static str, String)) -> io::Result<bool> {
        let mut buffer = [0; limits::ADMIN_HEAD];
        loop {
            let room = limits::ADMIN_HEAD - self.input.len();
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            match http::parse(&self.input, &mut self.scanned) {
                Ok(None) if self.input.len() == limits::ADMIN_HEAD => {
                    response::write(431, "request head too large", false, &mut self.output);
                }
                Ok(None) => continue, // there is room for more
                Ok(Some(head)) => self.answer(&head, answer),
                Err(error) => response::refuse(error, &mut self.output),
            }
            self.input = Vec::new();
            return Ok(true);
        }
    }

    fn answer(&mut self, head: &http::Head, answer: impl FnOnce(&str) -> (u16, &'static str, String)) {
        let method = &self.input[head.method.clone()];
        if !head.is_head && method != b"GET" {
            return response::write(405, "only GET and HEAD", false, &mut self.output);
        }
        // The path alone: a query is of no meaning here.
        let target = String::from_utf8_lossy(&self.input[head.target.clone()]);
        let (status, kind, text) = answer(target.split('?').next().unwrap_or_default());
        let reason = if status == 200 { "OK" } else { response::phrase(status) };
        self.output = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: close\r\n\r\n",
            text.len()
        )
        .into_bytes();
        if !head.is_head {
            self.output.extend_from_slice(text.as_bytes());
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the client has yet to close. What it sends is dropped, a bounded part of it.
    fn drop_input(&mut self) -> bool {
        let mut buffer = [0; 1_024];
        for _ in 0..limits::ADMIN_HEAD.div_ceil(buffer.len()) {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
        }
        false
    }
}
