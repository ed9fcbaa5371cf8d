//! Elements of XML as terms of ejabberd: `{xmlel, Name, Attrs, Children}`.

use megaphone_core::limits::SMALL_MESSAGE;
use megaphone_core::xml::{Class, Sink, XmlError, XmlLimits, parse};
use rustler::sys::{ErlNifTerm, enif_make_list_from_array, enif_make_new_binary, enif_make_tuple_from_array};
use rustler::{Binary, Encoder, Env, Term};

use crate::terms::{atoms, binary};

/// Bound: a text of `SMALL_MESSAGE` bytes; `slow` for a longer one.
#[rustler::nif]
fn parse_element<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    if text.len() > SMALL_MESSAGE { atoms::slow().encode(env) } else { parsed(env, &text) }
}

/// Works as long as the text takes.
#[rustler::nif(schedule = "DirtyCpu")]
fn parse_large_element<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    parsed(env, &text)
}

fn parsed<'a>(env: Env<'a>, text: &[u8]) -> Term<'a> {
    match element(env, text, &XmlLimits::default()) {
        Ok(element) => (atoms::ok(), element).encode(env),
        Err(error) => {
            let class = match error.class() {
                Class::TooBig => atoms::too_big(),
                Class::NotWellFormed => atoms::not_well_formed(),
                Class::Restricted => atoms::restricted(),
            };
            (atoms::error(), (class, binary(env, error.text().as_bytes()))).encode(env)
        }
    }
}

/// The element that a text is. Cost: linear in the text; all strings are copies.
pub(crate) fn element<'a>(env: Env<'a>, text: &[u8], limits: &XmlLimits) -> Result<Term<'a>, XmlError> {
    let xmlel = atoms::xmlel().encode(env).as_c_arg();
    let xmlcdata = atoms::xmlcdata().encode(env).as_c_arg();
    let mut builder = Builder { env, xmlel, xmlcdata, made: Vec::new(), open: Vec::new() };
    parse(text, limits, &mut builder)?;
    // A text that was taken is one element, which has ended.
    let made = builder.made.pop().unwrap_or(xmlel);
    // SAFETY: the term was made in this environment.
    Ok(unsafe { Term::new(env, made) })
}

/// An element without anything in it.
pub(crate) fn empty<'a>(env: Env<'a>, name: &[u8]) -> Term<'a> {
    let none: Vec<Term<'a>> = Vec::new();
    (atoms::xmlel(), binary(env, name), &none, &none).encode(env)
}

/// An element that has begun.
struct Open {
    name: ErlNifTerm,
    attributes: ErlNifTerm,
    /// Where its attributes, and later its children, begin among what was made.
    from: usize,
}

struct Builder<'a> {
    env: Env<'a>,
    xmlel: ErlNifTerm,
    xmlcdata: ErlNifTerm,
    /// Attributes of the element that began last, or children of all that are open.
    made: Vec<ErlNifTerm>,
    open: Vec<Open>,
}

impl Builder<'_> {
    fn string(&self, bytes: &[u8]) -> ErlNifTerm {
        let mut term = self.xmlel;
        // SAFETY: the VM makes a binary of this size, whose bytes are written before anybody else sees it. There are as many
        // bytes as the source has, and the two do not overlap.
        unsafe {
            let to = enif_make_new_binary(self.env.as_c_arg(), bytes.len(), &raw mut term);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        term
    }

    fn tuple(&self, elements: &[ErlNifTerm]) -> ErlNifTerm {
        // SAFETY: the array lives as long as the call, has the length that is told, and its terms are of this environment.
        unsafe { enif_make_tuple_from_array(self.env.as_c_arg(), elements.as_ptr(), elements.len() as u32) }
    }

    /// What was made since `from`, as a list.
    fn list(&mut self, from: usize) -> ErlNifTerm {
        let elements = &self.made[from..];
        // SAFETY: as in `tuple`.
        let list = unsafe {
            enif_make_list_from_array(self.env.as_c_arg(), elements.as_ptr(), elements.len() as u32)
        };
        self.made.truncate(from);
        list
    }
}

impl Sink for Builder<'_> {
    fn start(&mut self, name: &[u8]) {
        let name = self.string(name);
        self.open.push(Open { name, attributes: self.xmlel, from: self.made.len() });
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.string(name), self.string(value));
        self.made.push(self.tuple(&[name, value]));
    }

    fn attributes_end(&mut self) {
        let Some(from) = self.open.last().map(|open| open.from) else { return };
        let list = self.list(from);
        if let Some(open) = self.open.last_mut() {
            open.attributes = list;
        }
    }

    fn text(&mut self, text: &[u8]) {
        let text = self.string(text);
        self.made.push(self.tuple(&[self.xmlcdata, text]));
    }

    fn end(&mut self) {
        let Some(open) = self.open.pop() else { return };
        let children = self.list(open.from);
        self.made.push(self.tuple(&[self.xmlel, open.name, open.attributes, children]));
    }
}
