//! One XML element, as a message of XMPP over WebSocket has it (RFC 7395, 3.3), taken apart.
//!
//! What is accepted is what ejabberd's own parser (fast_xml, by expat, with namespaces) accepts and XMPP allows (RFC 6120,
//! 11.1): a stanza that it would refuse must not reach others, whose streams would end by it. What comes out is what
//! `fxml_stream:parse_element/1` gives: names as they are written, namespace declarations before the other attributes,
//! adjacent text joined, line ends and attribute values normalised (XML 1.0, 2.11 and 3.3.3).
//!
//! | module | what it is |
//! | --- | --- |
//! | `parse` | the parser |
//! | `scan` | characters, names and references |
//! | `names` | which characters names are made of |
//! | `namespaces` | prefixes in scope |
//! | `error` | why a text is refused |
//!
//! Nothing recurses, nothing is allocated by a number that the text tells, and the time is linear in its length.

mod error;
mod names;
mod namespaces;
mod parse;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use error::{Class, XmlError};
pub use parse::{Sink, parse};

use crate::limits;

/// How much an element may be, besides its length, which the caller knows before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XmlLimits {
    /// Elements within each other.
    pub depth: usize,
    /// Elements in all.
    pub elements: usize,
    /// Attributes of an element, namespace declarations among them.
    pub attributes: usize,
}

impl Default for XmlLimits {
    fn default() -> Self {
        Self { depth: limits::XML_DEPTH, elements: limits::XML_ELEMENTS, attributes: limits::XML_ATTRIBUTES }
    }
}
