//! What an operator tells a running manager, by signals or by the stream that [`crate::run`] is given.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// One byte on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take no further clients and end when those that are there have gone: byte `D`. Given a second time: stop.
    Drain,
    /// Read anew what can be read anew: byte `R`.
    Reload,
    /// End at once: any other byte, and the end of the stream.
    Stop,
}

impl Command {
    /// The byte that stands for it.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Drain => b'D',
            Self::Reload => b'R',
            Self::Stop => b'S',
        }
    }
}

impl From<u8> for Command {
    fn from(byte: u8) -> Self {
        match byte {
            b'D' => Self::Drain,
            b'R' => Self::Reload,
            _ => Self::Stop,
        }
    }
}

/// A stream that says `Drain` for SIGTERM, `Stop` for SIGINT and `Reload` for SIGHUP. A thread waits for them.
///
/// # Errors
/// What the system answers.
pub fn watch() -> io::Result<UnixStream> {
    let (reader, mut writer) = UnixStream::pair()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let command = match signal {
                SIGTERM => Command::Drain,
                SIGHUP => Command::Reload,
                _ => Command::Stop,
            };
            if writer.write_all(&[command.byte()]).is_err() {
                return;
            }
        }
    })?;
    Ok(reader)
}
