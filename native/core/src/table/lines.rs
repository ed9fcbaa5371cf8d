//! Cuts input into the lines that the decoder of HTTP packets takes one by one.

/// Length of the first complete packet at the start of `input`, its line end included; `None` if it is not complete.
///
/// A request line ends with its LF. A field goes on over lines that begin with a blank, so one byte beyond its LF has
/// to be there; the empty line that ends a head is complete by itself.
pub(super) fn packet_len(input: &[u8], field: bool) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + input[from..].iter().position(|byte| *byte == b'\n')? + 1;
        if !field || matches!(&input[..end], b"\n" | b"\r\n") {
            return Some(end);
        }
        match input.get(end)? {
            // The decoder does not continue a line of two bytes.
            b' ' | b'\t' if end > 2 => from = end,
            _ => return Some(end),
        }
    }
}

/// The value of a Content-Length field, if the line is one.
pub(super) fn content_length(line: &[u8]) -> Option<u64> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    if !name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
        return None;
    }
    core::str::from_utf8(value[1..].trim_ascii()).ok()?.parse().ok()
}

/// Whether a line ends the head.
pub(super) fn is_end_of_head(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_only_when_it_is_complete() {
        assert_eq!(packet_len(b"GET / HTTP/1.1\r", false), None);
        assert_eq!(packet_len(b"GET / HTTP/1.1\r\n", false), Some(16));
        assert_eq!(packet_len(b"Host: a\r\n", true), None);
        assert_eq!(packet_len(b"Host: a\r\n\r", true), Some(9));
        assert_eq!(packet_len(b"X: a\r\n b\r\nY", true), Some(10));
        assert_eq!(packet_len(b":\n x\n\n", true), Some(2));
        assert_eq!(packet_len(b"\r\n", true), Some(2));
        assert_eq!(packet_len(b"\r", true), None);
        assert_eq!(packet_len(b"", true), None);
    }

    #[test]
    fn a_length_is_read_whatever_the_case_of_its_name() {
        assert_eq!(content_length(b"CONTENT-length:  12 \r\n"), Some(12));
        assert_eq!(content_length(b"Content-Length: x\r\n"), None);
        assert_eq!(content_length(b"Content-Lengths: 1\r\n"), None);
    }
}
