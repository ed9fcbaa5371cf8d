//! What the client session has sent and no answer has carried yet.

use smallvec::SmallVec;

use super::answer::{Attributes, Condition};
use crate::limits::BOSH_ANSWER;

/// What a client session sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A stream begins: its id and version.
    Start {
        /// `id`
        id: &'a [u8],
        /// `version`, empty when there is none.
        version: &'a [u8],
    },
    /// The features of the stream.
    Features(&'a [u8]),
    /// Any other element, as a text that needs nothing declared around it.
    Element(&'a [u8]),
    /// An error that ends the stream.
    Error(&'a [u8]),
    /// The stream has ended.
    End,
}

/// See the module. Boxed while there is something in it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Elements, one after the other.
    texts: Vec<u8>,
    /// The length of each.
    lengths: std::collections::VecDeque<u32>,
    /// Where the first of them begins.
    start: usize,
    /// Id and version of a stream that has begun.
    begun: Option<Begun>,
    /// There are elements whose names have the prefix of streams.
    prefixed: bool,
    /// After this nothing comes.
    ended: bool,
    /// The last element is the error that ends the stream.
    failed: bool,
}

/// Bytes of each of some elements.
pub(super) type Lengths = SmallVec<[u32; 4]>;

/// What goes into one answer.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Elements, one after the other.
    pub(super) payload: Vec<u8>,
    /// Of each; empty when the answer says more than its elements, and cannot be taken back.
    pub(super) lengths: Lengths,
    /// The stream has ended with it.
    pub(super) ended: bool,
}

#[derive(Debug)]
struct Begun {
    id: Box<[u8]>,
    version: Box<[u8]>,
}

impl Outbox {
    /// Bytes of elements.
    pub(super) fn len(&self) -> usize {
        self.texts.len() - self.start
    }

    /// Whether a request should be answered for it. The begin of a stream alone is not worth one.
    pub(super) fn is_worth_an_answer(&self) -> bool {
        self.ended || !self.lengths.is_empty()
    }

    /// Whether nothing may come any more.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_worth_an_answer() && self.begun.is_none()
    }

    pub(super) fn push(&mut self, item: Item<'_>) {
        match item {
            Item::Start { id, version } => {
                self.begun = Some(Begun { id: id.into(), version: version.into() })
            }
            Item::Features(text) => {
                self.prefixed = true;
                self.element(text);
            }
            Item::Error(text) => {
                self.prefixed = true;
                self.ended = true;
                self.failed = true;
                self.element(text);
            }
            Item::Element(text) => self.element(text),
            Item::End => self.ended = true,
        }
    }

    fn element(&mut self, text: &[u8]) {
        self.texts.extend_from_slice(text);
        self.lengths.push_back(text.len() as u32); // bounded by BOSH_OUTBOX
    }

    /// Takes what goes into one answer, at most `most` elements (0: as many as there are), and adds its attributes. What was sent
    /// before the stream ended has answers of its own: clients do not look for it in the one that tells the end.
    pub(super) fn take(&mut self, most: usize, attributes: &mut Attributes) -> Taken {
        let most = if most == 0 { usize::MAX } else { most };
        let before_end = self.lengths.len() - usize::from(self.failed);
        let ended = self.ended && before_end == 0;
        let most = if before_end == 0 { most } else { most.min(before_end) };
        let (mut count, mut bytes) = (0, 0);
        for length in &self.lengths {
            if count == most || (count > 0 && bytes + *length as usize > BOSH_ANSWER) {
                break;
            }
            count += 1;
            bytes += *length as usize;
        }
        let mut lengths: Lengths = self.lengths.drain(..count).collect();
        let payload = if self.lengths.is_empty() && self.start == 0 {
            std::mem::take(&mut self.texts)
        } else {
            self.texts[self.start..self.start + bytes].to_vec()
        };
        self.start = if self.lengths.is_empty() { 0 } else { self.start + bytes };
        if self.lengths.is_empty() {
            self.texts = Vec::new();
        } else if self.start > self.texts.len() / 2 {
            // There may always be something left.
            self.texts.drain(..self.start);
            self.start = 0;
        }
        if ended {
            attributes.terminate(Some(Condition::RemoteStreamError));
        }
        if self.prefixed {
            attributes.declare_stream();
        }
        if let Some(Begun { id, version }) = self.begun.take() {
            if !version.is_empty() {
                attributes.declare_xmpp();
                attributes.text("xmpp:version", &version);
            }
            attributes.text("authid", &id);
            lengths.clear();
        }
        if ended {
            lengths.clear();
        }
        Taken { payload, lengths, ended }
    }

    /// Puts elements before all that is there.
    pub(super) fn put_back(&mut self, payload: &[u8], lengths: &[u32]) {
        self.texts.splice(..self.start, payload.iter().copied());
        self.start = 0;
        for length in lengths.iter().rev() {
            self.lengths.push_front(*length);
        }
    }

    /// The elements that are left, in order.
    pub(super) fn elements(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.texts[self.start..];
        self.lengths.iter().map(move |length| {
            let (element, after) = rest.split_at(*length as usize);
            rest = after;
            element
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_is_never_empty_does_not_grow() {
        let mut outbox = Outbox::default();
        let element = vec![b'x'; BOSH_ANSWER];
        outbox.push(Item::Element(&element));
        for _ in 0..100 {
            outbox.push(Item::Element(&element));
            let taken = outbox.take(0, &mut Attributes::default());
            assert_eq!((taken.payload, taken.lengths.len(), taken.ended), (element.clone(), 1, false));
            assert_eq!((outbox.len(), outbox.elements().count()), (BOSH_ANSWER, 1));
            assert!(outbox.texts.capacity() <= 8 * BOSH_ANSWER, "{} bytes", outbox.texts.capacity());
        }
    }
}
