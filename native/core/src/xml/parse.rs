//! The parser.

use std::ops::Range;

use smallvec::SmallVec;

use super::namespaces::Namespaces;
use super::scan::{Name, Scanner};
use super::{XmlError, XmlLimits};

/// What is told of an element, in the order of the text.
pub trait Sink {
    /// An element begins.
    fn start(&mut self, name: &[u8]);
    /// An attribute of the element that began last: first its namespace declarations, then the others, each in order.
    fn attribute(&mut self, name: &[u8], value: &[u8]);
    /// All attributes of the element that began last were told.
    fn attributes_end(&mut self);
    /// Text, not empty. No other text comes right behind it.
    fn text(&mut self, text: &[u8]);
    /// The element that began last, of those that have not ended, ends.
    fn end(&mut self);
}

/// Takes one element apart. Its length is the caller's to limit.
///
/// # Errors
/// [`XmlError`]; what the sink was told before is of no use then. Cost: linear in the text.
pub fn parse(text: &[u8], limits: &XmlLimits, sink: &mut impl Sink) -> Result<(), XmlError> {
    let scanner = Scanner { text, at: 0 };
    let mut parser = Parser {
        scanner,
        limits,
        namespaces: Namespaces::default(),
        open: SmallVec::new(),
        elements: 0,
        attributes: SmallVec::new(),
        buffer: Vec::new(),
        run: Run::default(),
    };
    parser.declaration()?;
    parser.outside()?;
    parser.scanner.expect(b'<')?;
    parser.start(sink)?;
    while !parser.open.is_empty() {
        parser.content(sink)?;
    }
    parser.outside()?;
    if parser.scanner.rest().is_empty() { Ok(()) } else { Err(XmlError::Outside) }
}

/// Bytes that are a part of the text, or of the parser's buffer.
#[derive(Debug)]
enum Value {
    Text(Range<usize>),
    Buffer(Range<usize>),
}

#[derive(Debug)]
struct Attribute<'a> {
    name: Name<'a>,
    value: Value,
}

impl<'a> Attribute<'a> {
    /// If it declares a namespace: its prefix.
    fn declares(&self) -> Option<Option<&'a [u8]>> {
        match self.name {
            Name { prefix: Some(b"xmlns"), local, .. } => Some(Some(local)),
            Name { prefix: None, local: b"xmlns", .. } => Some(None),
            _ => None,
        }
    }
}

/// Text that was read and not told yet.
#[derive(Debug, Default)]
struct Run {
    /// As it stands in the text, as long as that is all of it.
    plain: Range<usize>,
    /// Else a copy.
    joined: Vec<u8>,
}

#[derive(Debug)]
struct Open<'a> {
    name: &'a [u8],
    /// Declarations before it.
    namespaces: usize,
}

struct Parser<'a, 'l> {
    scanner: Scanner<'a>,
    limits: &'l XmlLimits,
    namespaces: Namespaces<'a>,
    open: SmallVec<[Open<'a>; 8]>,
    elements: usize,
    attributes: SmallVec<[Attribute<'a>; 8]>,
    /// Values of attributes of one element that are not as they are written.
    buffer: Vec<u8>,
    run: Run,
}

impl<'a> Parser<'a, '_> {
    /// The usual XML declaration, which says nothing: version 1.0, perhaps that it is UTF-8, and that it stands alone or not.
    fn declaration(&mut self) -> Result<(), XmlError> {
        let scanner = &mut self.scanner;
        if !scanner.rest().starts_with(b"<?xml")
            || !matches!(scanner.text.get(5), Some(b' ' | b'\t' | b'\n' | b'\r'))
        {
            return Ok(());
        }
        scanner.at += 5;
        let mut value = |name: &[u8], values: &[&[u8]]| {
            let start = scanner.at;
            let mut is_here = scanner.skip_space() && scanner.eat(name);
            if !is_here {
                scanner.at = start;
                return Ok(false);
            }
            scanner.skip_space();
            is_here = scanner.eat(b"=");
            scanner.skip_space();
            let quote = scanner.peek().filter(|byte| matches!(byte, b'\'' | b'"'));
            let (Some(quote), true) = (quote, is_here) else { return Err(XmlError::Instruction) };
            let rest = &scanner.rest()[1..];
            let end = rest.iter().take(8).position(|byte| *byte == quote).ok_or(XmlError::Instruction)?;
            scanner.at += end + 2;
            // Names of encodings have no case.
            let found = rest[..end].to_ascii_lowercase();
            let found = if name == b"encoding" { &found } else { &rest[..end] };
            let is_known = values.contains(&found);
            if is_known { Ok(true) } else { Err(XmlError::Instruction) }
        };
        if !value(b"version", &[b"1.0"])? {
            return Err(XmlError::Instruction);
        }
        value(b"encoding", &[b"utf-8"])?;
        value(b"standalone", &[b"yes", b"no"])?;
        scanner.skip_space();
        if scanner.eat(b"?>") { Ok(()) } else { Err(XmlError::Instruction) }
    }

    /// What may stand before and behind the element.
    fn outside(&mut self) -> Result<(), XmlError> {
        self.scanner.skip_space();
        let rest = self.scanner.rest();
        if rest.starts_with(b"<!") || rest.starts_with(b"<?") {
            return Err(self.markup());
        }
        Ok(())
    }

    /// What is begun by `<!` or `<?` here and is no CDATA.
    fn markup(&self) -> XmlError {
        let rest = self.scanner.rest();
        match () {
            () if rest.starts_with(b"<!--") => XmlError::Comment,
            () if rest.starts_with(b"<!DOCTYPE") => XmlError::Doctype,
            () if rest.starts_with(b"<?") => XmlError::Instruction,
            () => XmlError::Syntax,
        }
    }

    /// A start tag, or an empty element; the scanner is behind its `<`.
    fn start(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        let name = self.scanner.name()?;
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(XmlError::Elements);
        }
        if self.open.len() >= self.limits.depth {
            return Err(XmlError::Depth);
        }
        let before = self.namespaces.len();
        let is_empty = self.read_attributes()?;
        sink.start(name.whole);
        self.tell_attributes(sink)?;
        if let Some(prefix) = name.prefix {
            self.namespaces.find(prefix)?;
        }
        if is_empty {
            self.namespaces.truncate(before);
            sink.end();
        } else {
            self.open.push(Open { name: name.whole, namespaces: before });
        }
        self.run.plain = self.scanner.at..self.scanner.at;
        Ok(())
    }

    /// Reads to the end of a start tag; true: the element is empty.
    fn read_attributes(&mut self) -> Result<bool, XmlError> {
        self.attributes.clear();
        self.buffer.clear();
        loop {
            let spaced = self.scanner.skip_space();
            match self.scanner.peek() {
                None => return Err(XmlError::Unfinished),
                Some(b'>') => {
                    self.scanner.at += 1;
                    return Ok(false);
                }
                Some(b'/') => {
                    self.scanner.at += 1;
                    return self.scanner.expect(b'>').map(|()| true);
                }
                Some(_) if !spaced => return Err(XmlError::Syntax),
                Some(_) => {}
            }
            let name = self.scanner.name()?;
            if self.attributes.len() >= self.limits.attributes {
                return Err(XmlError::Attributes);
            }
            if self.attributes.iter().any(|other| other.name.whole == name.whole) {
                return Err(XmlError::Duplicate);
            }
            self.scanner.skip_space();
            self.scanner.expect(b'=')?;
            self.scanner.skip_space();
            let value = self.value()?;
            self.attributes.push(Attribute { name, value });
        }
    }

    fn value(&mut self) -> Result<Value, XmlError> {
        let quote = match self.scanner.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            Some(_) => return Err(XmlError::Syntax),
            None => return Err(XmlError::Unfinished),
        };
        self.scanner.at += 1;
        let start = self.scanner.at;
        let copied = self.buffer.len();
        let mut plain = start;
        loop {
            let at = self.scanner.at;
            let Some(byte) = self.scanner.peek() else { return Err(XmlError::Unfinished) };
            match byte {
                _ if byte == quote => break,
                b'<' => return Err(XmlError::Syntax),
                b'&' => {
                    self.buffer.extend_from_slice(&self.scanner.text[plain..at]);
                    self.scanner.at += 1;
                    let c = self.scanner.reference()?;
                    self.buffer.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    plain = self.scanner.at;
                }
                b'\t' | b'\n' | b'\r' => {
                    self.buffer.extend_from_slice(&self.scanner.text[plain..at]);
                    self.buffer.push(b' ');
                    self.scanner.at += if self.scanner.rest().starts_with(b"\r\n") { 2 } else { 1 };
                    plain = self.scanner.at;
                }
                0x20..0x80 => self.scanner.at += 1,
                0x80.. => self.scanner.at += self.scanner.char()?.1,
                _ => return Err(XmlError::Character),
            }
        }
        let end = self.scanner.at;
        self.scanner.at += 1;
        if plain == start {
            return Ok(Value::Text(start..end));
        }
        self.buffer.extend_from_slice(&self.scanner.text[plain..end]);
        Ok(Value::Buffer(copied..self.buffer.len()))
    }

    fn tell_attributes(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        if self.attributes.is_empty() {
            sink.attributes_end();
            return Ok(());
        }
        let text = self.scanner.text;
        let bytes = |value: &Value| match value {
            Value::Text(range) => &text[range.clone()],
            Value::Buffer(range) => &self.buffer[range.clone()],
        };
        for attribute in &self.attributes {
            let Some(prefix) = attribute.declares() else { continue };
            let value = bytes(&attribute.value);
            self.namespaces.declare(prefix, value)?;
            // Taking the default namespace away is not told.
            if !value.is_empty() {
                sink.attribute(attribute.name.whole, value);
            }
        }
        for (at, attribute) in self.attributes.iter().enumerate() {
            if attribute.declares().is_some() {
                continue;
            }
            if let Some(prefix) = attribute.name.prefix {
                let namespace = self.namespaces.find(prefix)?;
                for other in &self.attributes[..at] {
                    if other.declares().is_none()
                        && other.name.local == attribute.name.local
                        && let Some(prefix) = other.name.prefix
                        && self.namespaces.find(prefix)? == namespace
                    {
                        return Err(XmlError::Duplicate);
                    }
                }
            }
            sink.attribute(attribute.name.whole, bytes(&attribute.value));
        }
        sink.attributes_end();
        Ok(())
    }

    /// What comes next in the element that is open.
    fn content(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        let Some(byte) = self.scanner.peek() else { return Err(XmlError::Unfinished) };
        match byte {
            b'<' => self.tag(sink),
            b'&' => {
                self.join();
                self.scanner.at += 1;
                let c = self.scanner.reference()?;
                self.run.joined.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.run.plain = self.scanner.at..self.scanner.at;
                Ok(())
            }
            b'\r' => {
                self.line_end();
                Ok(())
            }
            _ => self.characters(),
        }
    }

    fn tag(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        match self.scanner.text.get(self.scanner.at + 1) {
            None => Err(XmlError::Unfinished),
            Some(b'/') => {
                self.tell_text(sink);
                self.scanner.at += 2;
                self.end(sink)
            }
            Some(b'!' | b'?') => self.cdata(),
            Some(_) => {
                self.tell_text(sink);
                self.scanner.at += 1;
                self.start(sink)
            }
        }
    }

    fn end(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        let name = self.scanner.name()?;
        self.scanner.skip_space();
        self.scanner.expect(b'>')?;
        match self.open.pop() {
            Some(open) if open.name == name.whole => self.namespaces.truncate(open.namespaces),
            _ => return Err(XmlError::Mismatch),
        }
        sink.end();
        self.run.plain = self.scanner.at..self.scanner.at;
        Ok(())
    }

    /// Plain text, up to the next byte that is not.
    fn characters(&mut self) -> Result<(), XmlError> {
        loop {
            match self.scanner.peek() {
                None | Some(b'<' | b'&' | b'\r') => break,
                Some(b']') if self.scanner.rest().starts_with(b"]]>") => return Err(XmlError::Syntax),
                Some(b'\t' | b'\n' | 0x20..0x80) => self.scanner.at += 1,
                Some(0x80..) => self.scanner.at += self.scanner.char()?.1,
                Some(_) => return Err(XmlError::Character),
            }
        }
        self.run.plain.end = self.scanner.at;
        Ok(())
    }

    fn cdata(&mut self) -> Result<(), XmlError> {
        if !self.scanner.rest().starts_with(b"<![CDATA[") {
            let could_be = b"<![CDATA[".starts_with(self.scanner.rest());
            return Err(if could_be { XmlError::Unfinished } else { self.markup() });
        }
        self.join();
        self.scanner.at += b"<![CDATA[".len();
        self.run.plain = self.scanner.at..self.scanner.at;
        loop {
            match self.scanner.peek() {
                None => return Err(XmlError::Unfinished),
                Some(b']') if self.scanner.rest().starts_with(b"]]>") => break,
                Some(b'\r') => self.line_end(),
                Some(b'\t' | b'\n' | 0x20..0x80) => self.scanner.at += 1,
                Some(0x80..) => self.scanner.at += self.scanner.char()?.1,
                Some(_) => return Err(XmlError::Character),
            }
            self.run.plain.end = self.scanner.at;
        }
        self.join();
        self.scanner.at += 3;
        self.run.plain = self.scanner.at..self.scanner.at;
        Ok(())
    }

    /// A line's end, in whatever form, is one line feed.
    fn line_end(&mut self) {
        self.join();
        self.run.joined.push(b'\n');
        self.scanner.at += if self.scanner.rest().starts_with(b"\r\n") { 2 } else { 1 };
        self.run.plain = self.scanner.at..self.scanner.at;
    }

    /// Copies the plain text that was read, because something follows that is not plain.
    fn join(&mut self) {
        let plain = self.run.plain.clone();
        self.run.joined.extend_from_slice(&self.scanner.text[plain]);
        self.run.plain = self.scanner.at..self.scanner.at;
    }

    fn tell_text(&mut self, sink: &mut impl Sink) {
        if self.run.joined.is_empty() {
            let plain = self.run.plain.clone();
            if !plain.is_empty() {
                sink.text(&self.scanner.text[plain]);
            }
        } else {
            self.join();
            sink.text(&self.run.joined);
            self.run.joined.clear();
        }
        self.run.plain = self.scanner.at..self.scanner.at;
    }
}
