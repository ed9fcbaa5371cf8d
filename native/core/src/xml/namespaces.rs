//! Prefixes in scope (Namespaces in XML 1.0).

use super::XmlError;
use crate::limits::XML_NAMESPACES;

const XML: &[u8] = b"http://www.w3.org/XML/1998/namespace";
const XMLNS: &[u8] = b"http://www.w3.org/2000/xmlns/";

/// The declarations in scope, the latest last. Names are parts of the text; values may have been written with references, and
/// are kept by their place in one buffer then.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    declared: Vec<(&'a [u8], Vec<u8>)>,
}

impl<'a> Namespaces<'a> {
    pub(super) fn len(&self) -> usize {
        self.declared.len()
    }

    /// Forgets all but the first ones.
    pub(super) fn truncate(&mut self, length: usize) {
        self.declared.truncate(length);
    }

    /// Declares a prefix; none: the default namespace, which no name here is looked up in.
    pub(super) fn declare(&mut self, prefix: Option<&'a [u8]>, value: &[u8]) -> Result<(), XmlError> {
        let is_xml = prefix == Some(b"xml");
        if prefix == Some(b"xmlns")
            || (prefix.is_some() && value.is_empty())
            || is_xml != (value == XML)
            || value == XMLNS
            // What expat puts between the parts of a name.
            || value.contains(&b'\n')
        {
            return Err(XmlError::Declaration);
        }
        if self.declared.len() >= XML_NAMESPACES {
            return Err(XmlError::Namespaces);
        }
        if let Some(prefix) = prefix {
            self.declared.push((prefix, value.to_vec()));
        }
        Ok(())
    }

    /// The namespace of a prefix.
    pub(super) fn find(&self, prefix: &[u8]) -> Result<&[u8], XmlError> {
        let found = self.declared.iter().rev().find(|(name, _)| *name == prefix);
        match found {
            Some((_, value)) => Ok(value),
            None if prefix == b"xml" => Ok(XML),
            None => Err(XmlError::Prefix),
        }
    }
}
