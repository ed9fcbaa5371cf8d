//! Any bytes as an element of XML: what is accepted is told in balance, and written down again it is the same element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::xml::{Sink, XmlError, XmlLimits, parse};

fuzz_target!(|input: &[u8]| {
    let Ok(story) = read(input) else { return };
    assert!(story.is_balanced());
    let text = story.write();
    let again = read(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    assert_eq!(again.0, story.0);
});

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Start(Vec<u8>),
    Attribute(Vec<u8>, Vec<u8>),
    Attributes,
    Text(Vec<u8>),
    End,
}

#[derive(Debug, Default)]
struct Story(Vec<Event>);

impl Sink for Story {
    fn start(&mut self, name: &[u8]) {
        self.0.push(Event::Start(name.to_vec()));
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        self.0.push(Event::Attribute(name.to_vec(), value.to_vec()));
    }

    fn attributes_end(&mut self) {
        self.0.push(Event::Attributes);
    }

    fn text(&mut self, text: &[u8]) {
        assert!(!text.is_empty() && !matches!(self.0.last(), Some(Event::Text(_))), "text is joined");
        self.0.push(Event::Text(text.to_vec()));
    }

    fn end(&mut self) {
        self.0.push(Event::End);
    }
}

fn read(text: &[u8]) -> Result<Story, XmlError> {
    let mut story = Story::default();
    parse(text, &XmlLimits::default(), &mut story).map(|()| story)
}

impl Story {
    /// One element around all, each ended.
    fn is_balanced(&self) -> bool {
        let mut depth = 0_usize;
        for (at, event) in self.0.iter().enumerate() {
            match event {
                Event::Start(_) => depth += 1,
                Event::End => depth -= 1,
                _ => {}
            }
            if depth == 0 && at + 1 < self.0.len() {
                return false;
            }
        }
        depth == 0
    }

    fn write(&self) -> Vec<u8> {
        let (mut out, mut open) = (Vec::new(), Vec::new());
        for event in &self.0 {
            match event {
                Event::Start(name) => {
                    out.push(b'<');
                    out.extend(name);
                    open.push(name);
                }
                Event::Attribute(name, value) => {
                    out.push(b' ');
                    out.extend(name);
                    out.extend(b"=\"");
                    escape(value, &mut out);
                    out.push(b'"');
                }
                Event::Attributes => out.push(b'>'),
                Event::Text(text) => escape(text, &mut out),
                Event::End => {
                    out.extend(b"</");
                    out.extend(open.pop().expect("an open one"));
                    out.push(b'>');
                }
            }
        }
        out
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'<' | b'>' | b'&' | b'"' | b'\t' | b'\n' | b'\r' => out.extend(format!("&#{byte};").bytes()),
            _ => out.push(*byte),
        }
    }
}
