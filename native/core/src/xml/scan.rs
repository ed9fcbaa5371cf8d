//! Characters, names and references.

use super::XmlError;
use super::names;

/// A name as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// All of it.
    pub(super) whole: &'a [u8],
    /// What stands before the colon, if there is one.
    pub(super) prefix: Option<&'a [u8]>,
    /// What stands behind it, or all.
    pub(super) local: &'a [u8],
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Goes on behind `expected`, if it is here.
    pub(super) fn eat(&mut self, expected: &[u8]) -> bool {
        let is_here = self.rest().starts_with(expected);
        if is_here {
            self.at += expected.len();
        }
        is_here
    }

    /// Goes on behind one byte, which must be here.
    pub(super) fn expect(&mut self, expected: u8) -> Result<(), XmlError> {
        match self.peek() {
            Some(byte) if byte == expected => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(XmlError::Syntax),
            None => Err(XmlError::Unfinished),
        }
    }

    /// Whether there was white space.
    pub(super) fn skip_space(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at > start
    }

    /// A name, with at most one colon within it.
    pub(super) fn name(&mut self) -> Result<Name<'a>, XmlError> {
        let start = self.at;
        self.part()?;
        let colon = self.at;
        if self.peek() != Some(b':') {
            let whole = &self.text[start..self.at];
            return Ok(Name { whole, prefix: None, local: whole });
        }
        self.at += 1;
        self.part()?;
        if self.peek() == Some(b':') {
            return Err(XmlError::Syntax);
        }
        Ok(Name {
            whole: &self.text[start..self.at],
            prefix: Some(&self.text[start..colon]),
            local: &self.text[colon + 1..self.at],
        })
    }

    /// A part of a name, without colons.
    fn part(&mut self) -> Result<(), XmlError> {
        match self.peek() {
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => self.at += 1,
            Some(0x80..) => {
                let (c, length) = self.char()?;
                if !names::begins(c) {
                    return Err(XmlError::Syntax);
                }
                self.at += length;
            }
            Some(_) => return Err(XmlError::Syntax),
            None => return Err(XmlError::Unfinished),
        }
        loop {
            match self.peek() {
                Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.') => self.at += 1,
                Some(0x80..) => {
                    let (c, length) = self.char()?;
                    if !names::goes_on(c) {
                        return Err(XmlError::Syntax);
                    }
                    self.at += length;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The character here, and how many bytes it has. Not all of it may be there.
    pub(super) fn char(&self) -> Result<(char, usize), XmlError> {
        let rest = self.rest();
        let length = match rest.first() {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            Some(..0x80) => 1,
            Some(_) => return Err(XmlError::Character),
            None => return Err(XmlError::Unfinished),
        };
        let bytes = rest.get(..length).ok_or(XmlError::Unfinished)?;
        let c = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next());
        let c = c.filter(|c| is_char(*c)).ok_or(XmlError::Character)?;
        Ok((c, length))
    }

    /// What a reference stands for; the scanner is behind its `&`.
    pub(super) fn reference(&mut self) -> Result<char, XmlError> {
        if self.eat(b"#") {
            return self.number();
        }
        for (name, c) in
            [(&b"lt;"[..], '<'), (b"gt;", '>'), (b"amp;", '&'), (b"apos;", '\''), (b"quot;", '"')]
        {
            if self.eat(name) {
                return Ok(c);
            }
        }
        self.name()?;
        self.expect(b';')?;
        Err(XmlError::Entity)
    }

    fn number(&mut self) -> Result<char, XmlError> {
        let radix = if self.eat(b"x") { 16 } else { 10 };
        let (start, mut number) = (self.at, 0_u32);
        while let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(radix)) {
            // Beyond all characters it stays there.
            number = number.saturating_mul(radix).saturating_add(digit).min(0x11_0000);
            self.at += 1;
        }
        if self.at == start {
            return Err(if self.peek().is_none() { XmlError::Unfinished } else { XmlError::Syntax });
        }
        self.expect(b';')?;
        char::from_u32(number).filter(|c| is_char(*c)).ok_or(XmlError::Reference)
    }
}

/// Whether XML has this character (XML 1.0, 2.2).
fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}
