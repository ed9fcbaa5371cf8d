//! Bytes on their way out: into a buffer that grows as needed, and into a socket that does not block.

use std::io::{self, ErrorKind, Write};

use rustls::Error;

/// Appends to `out` what `put` writes into a slice of `guess` bytes, or of as many as it asks for by its error.
pub(super) fn encode(
    out: &mut Vec<u8>,
    guess: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let start = out.len();
    let mut size = guess;
    for _ in 0..2 {
        out.resize(start + size, 0);
        match put(&mut out[start..]) {
            Ok(count) => {
                out.truncate(start + count);
                return Ok(());
            }
            Err(Some(required)) => size = required,
            Err(None) => break,
        }
    }
    out.truncate(start);
    Err(Error::EncryptError)
}

/// Writes until the socket takes no more; answers how much it took.
pub(super) fn write_some(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
