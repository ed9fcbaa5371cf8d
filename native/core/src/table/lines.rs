//! Cuts input into the lines that the decoder of HTTP packets takes one by one.

/// Length of the first complete packet at the start of `input`, its line end included; `None` if it is not complete.
///
/// A request line ends with its LF. A field goes on over lines that begin with a blank, so one byte beyond its LF has
/// to be there; the empty line that ends a head is complete by itself.
///
/// `scanned` bytes hold no end; it is 0 at first and is kept for the next try, which goes on there.
pub(super) fn packet_len(input: &[u8], field: bool, scanned: &mut usize) -> Option<usize> {
    loop {
        let Some(at) = input.get(*scanned..)?.iter().position(|byte| *byte == b'\n') else {
            *scanned = input.len();
            return None;
        };
        let end = *scanned + at + 1;
        if !field || matches!(&input[..end], b"\n" | b"\r\n") {
            return Some(end);
        }
        match input.get(end) {
            // The decoder does not continue a line of two bytes.
            Some(b' ' | b'\t') if end > 2 => *scanned = end,
            Some(_) => return Some(end),
            None => {
                *scanned = end - 1; // its LF is found again at once
                return None;
            }
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
        let packet_len = |input, field| packet_len(input, field, &mut 0);
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

    /// Trying after each byte finds the same as trying once, and looks at no byte twice but for the LF of a field.
    #[test]
    fn a_try_goes_on_where_the_last_one_ended() {
        for input in
            ["GET / HTTP/1.1\r\nX", "X: a\r\n b\r\n\t\r\n c\nY", ":\n x\n\n", "\r\n", "\n\n", "\r\r\n x"]
        {
            let input = input.as_bytes();
            for field in [false, true] {
                let at_once = packet_len(input, field, &mut 0);
                let mut scanned = 0;
                let found = (1..=input.len()).find_map(|there| {
                    let found = packet_len(&input[..there], field, &mut scanned);
                    assert!(found.is_some() || scanned + 1 >= there, "{scanned} of {there}");
                    found
                });
                assert_eq!(found, at_once, "{}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn a_length_is_read_whatever_the_case_of_its_name() {
        assert_eq!(content_length(b"CONTENT-length:  12 \r\n"), Some(12));
        assert_eq!(content_length(b"Content-Length: x\r\n"), None);
        assert_eq!(content_length(b"Content-Lengths: 1\r\n"), None);
    }
}
