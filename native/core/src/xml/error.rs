//! Why a text is refused.

use std::fmt;

/// Which stream error of RFC 6120, 4.9.3, answers a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// policy-violation: a limit.
    TooBig,
    /// not-well-formed.
    NotWellFormed,
    /// restricted-xml: XML that XMPP does without.
    Restricted,
}

/// Why a text is no element for XMPP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlError {
    /// Elements within each other.
    Depth,
    /// Elements in all.
    Elements,
    /// Attributes of an element.
    Attributes,
    /// Namespace declarations in scope.
    Namespaces,
    /// It ends too early.
    Unfinished,
    /// Something beside the one element.
    Outside,
    /// A character where it may not stand.
    Syntax,
    /// A character that XML does not have, or bytes that are not UTF-8.
    Character,
    /// The end of another element.
    Mismatch,
    /// An attribute that is there twice.
    Duplicate,
    /// A prefix that is not declared.
    Prefix,
    /// A declaration that namespaces forbid.
    Declaration,
    /// A reference to a character that XML does not have.
    Reference,
    /// A reference to an entity other than the five that are always there.
    Entity,
    /// A comment.
    Comment,
    /// A processing instruction, or an XML declaration other than the usual one.
    Instruction,
    /// A document type.
    Doctype,
}

impl XmlError {
    /// The stream error that it stands for.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Depth | Self::Elements | Self::Attributes | Self::Namespaces => Class::TooBig,
            Self::Comment | Self::Instruction | Self::Doctype | Self::Entity => Class::Restricted,
            _ => Class::NotWellFormed,
        }
    }

    /// For people; nothing of the text is in it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Depth => "too many elements within each other",
            Self::Elements => "too many elements",
            Self::Attributes => "too many attributes",
            Self::Namespaces => "too many namespace declarations",
            Self::Unfinished => "the element is not complete",
            Self::Outside => "something beside the element",
            Self::Syntax => "a character where it may not stand",
            Self::Character => "a character that is none",
            Self::Mismatch => "the end of another element",
            Self::Duplicate => "an attribute is there twice",
            Self::Prefix => "a prefix is not declared",
            Self::Declaration => "a forbidden namespace declaration",
            Self::Reference => "a reference to a character that is none",
            Self::Entity => "entities are not allowed",
            Self::Comment => "comments are not allowed",
            Self::Instruction => "processing instructions are not allowed",
            Self::Doctype => "document types are not allowed",
        }
    }
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for XmlError {}
