//! Reads the XML that an XMPP server sends: no comments, no CDATA, no namespaces resolved. Not for untrusted input.

/// What is nested deeper than this is taken for a fault.
const MAX_DEPTH: usize = 64;

/// An element with all that is in it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Element {
    /// As it was written, with its prefix.
    pub name: String,
    /// Names and values, in order.
    pub attributes: Vec<(String, String)>,
    /// The elements right below.
    pub children: Vec<Self>,
    /// All text right below, joined.
    pub text: String,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// More bytes may complete it.
    Incomplete,
    /// No further byte can.
    Malformed(&'static str),
}

impl Element {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first child of this name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The name without its prefix.
    #[must_use]
    pub fn local_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or(&self.name)
    }
}

/// Reads one element, white space and declarations before it included: the element and how many bytes it took.
///
/// # Errors
///
/// When the bytes end within it, or are no XML.
pub fn element(input: &[u8]) -> Result<(Element, usize), Error> {
    let mut reader = Reader { input, at: 0 };
    reader.skip_prolog()?;
    let element = reader.element(0)?;
    Ok((element, reader.at))
}

/// Reads the tag that opens a stream, without what follows it.
///
/// # Errors
///
/// When the bytes end within it, or are no XML.
pub fn open_tag(input: &[u8]) -> Result<(Element, usize), Error> {
    let mut reader = Reader { input, at: 0 };
    reader.skip_prolog()?;
    let (element, _) = reader.tag()?;
    Ok((element, reader.at))
}

/// Text as it may stand between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, Error> {
        self.input.get(self.at).copied().ok_or(Error::Incomplete)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek()? != byte {
            return Err(Error::Malformed("unexpected character in a tag"));
        }
        self.at += 1;
        Ok(())
    }

    fn skip_space(&mut self) {
        while self.input.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Everything up to this byte, which stays.
    fn until(&mut self, stop: impl Fn(u8) -> bool) -> Result<&[u8], Error> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|&byte| stop(byte)).ok_or(Error::Incomplete)?;
        self.at += length;
        Ok(&rest[..length])
    }

    fn skip_prolog(&mut self) -> Result<(), Error> {
        loop {
            self.skip_space();
            if self.peek()? != b'<' {
                return Err(Error::Malformed("text outside of an element"));
            }
            if *self.input.get(self.at + 1).ok_or(Error::Incomplete)? != b'?' {
                return Ok(());
            }
            self.until(|byte| byte == b'>')?;
            self.at += 1;
        }
    }

    fn name(&mut self) -> Result<String, Error> {
        let name = self.until(|byte| byte.is_ascii_whitespace() || b"=/>".contains(&byte))?;
        if name.is_empty() {
            return Err(Error::Malformed("a name is missing"));
        }
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// An opening tag: the element, and whether it is an empty one.
    fn tag(&mut self) -> Result<(Element, bool), Error> {
        self.expect(b'<')?;
        let mut element = Element { name: self.name()?, ..Element::default() };
        loop {
            self.skip_space();
            match self.peek()? {
                b'>' => {
                    self.at += 1;
                    return Ok((element, false));
                }
                b'/' => {
                    self.at += 1;
                    self.expect(b'>')?;
                    return Ok((element, true));
                }
                _ => element.attributes.push(self.attribute()?),
            }
        }
    }

    fn attribute(&mut self) -> Result<(String, String), Error> {
        let name = self.name()?;
        self.skip_space();
        self.expect(b'=')?;
        self.skip_space();
        let quote = self.peek()?;
        if quote != b'\'' && quote != b'"' {
            return Err(Error::Malformed("an attribute without quotes"));
        }
        self.at += 1;
        let value = unescape(self.until(|byte| byte == quote)?)?;
        self.at += 1;
        Ok((name, value))
    }

    fn element(&mut self, depth: usize) -> Result<Element, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Malformed("nested too deep"));
        }
        let (mut element, empty) = self.tag()?;
        if empty {
            return Ok(element);
        }
        loop {
            let text = unescape(self.until(|byte| byte == b'<')?)?;
            element.text.push_str(&text);
            if *self.input.get(self.at + 1).ok_or(Error::Incomplete)? != b'/' {
                element.children.push(self.element(depth + 1)?);
                continue;
            }
            self.at += 2;
            if self.name()? != element.name {
                return Err(Error::Malformed("another element is closed than was opened"));
            }
            self.skip_space();
            self.expect(b'>')?;
            return Ok(element);
        }
    }
}

fn unescape(text: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';').ok_or(Error::Malformed("an entity without its end"))?;
        plain.push(character(entity).ok_or(Error::Malformed("an unknown entity"))?);
        plain.push_str(rest);
    }
    Ok(plain)
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZA: &str =
        "<?xml version='1.0'?> <iq type='result' id=\"a&amp;b\"><q xmlns='x'/>t&lt;<c>d</c></iq>";

    #[test]
    fn reads_an_element() {
        let (element, length) = element(format!("{STANZA}<next").as_bytes()).expect("complete");
        assert_eq!(length, STANZA.len());
        assert_eq!(element.attribute("id"), Some("a&b"));
        assert_eq!(element.child("q").and_then(|child| child.attribute("xmlns")), Some("x"));
        assert_eq!(element.child("c").map(|child| child.text.as_str()), Some("d"));
        assert_eq!(element.text, "t<");
    }

    #[test]
    fn waits_for_the_end() {
        for end in 0..STANZA.len() {
            assert_eq!(element(&STANZA.as_bytes()[..end]), Err(Error::Incomplete), "{end} bytes");
        }
    }

    #[test]
    fn opens_a_stream() {
        let (tag, length) = open_tag(b"<?xml version='1.0'?><stream:stream id='7'><x/>").expect("complete");
        assert_eq!((tag.local_name(), tag.attribute("id"), length), ("stream", Some("7"), 43));
    }

    #[test]
    fn refuses_what_is_no_xml() {
        for text in ["<a></b>", "text", "<a b=c/>", "<a>&nothing;</a>", "<a>&amp</a>"] {
            assert!(matches!(element(text.as_bytes()), Err(Error::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn escapes_what_it_reads_back() {
        let text = "<'&\">\u{e4}";
        let (element, _) = element(format!("<a b='{0}'>{0}</a>", escape(text)).as_bytes()).expect("complete");
        assert_eq!((element.attribute("b"), element.text.as_str()), (Some(text), text));
    }
}
