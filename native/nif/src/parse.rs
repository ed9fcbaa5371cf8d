//! The NIFs that take whole requests apart. Documented for users in `megaphone_nif.erl`.
//!
//! Strings are parts of the input binary, as those of `erlang:decode_packet/3` are. What is the same in every request
//! comes from Erlang as `Templates`, which are literals of a module: no call makes or copies them.

use std::mem::MaybeUninit;

use megaphone_core::limits::MAX_HEADERS;
use megaphone_core::packet::{
    FIELDS, Field, Fields, Known, MAX_TITLE_CASE, OTHER_FIELDS, Span, Target, USUAL_FIELDS, Whole,
    method_index, title_case,
};
use megaphone_core::table::Closed;
use rustler::sys::{
    ErlNifTerm, enif_get_tuple, enif_make_list_from_array, enif_make_sub_binary, enif_make_tuple_from_array,
};
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::TABLE;
use crate::host::Bin;
use crate::terms::{self, atoms};

/// Bound: heads up to `MAX_HEAD` bytes and `MAX_HEADERS` fields; others are left to the caller.
#[rustler::nif]
fn parse_packet<'a>(env: Env<'a>, data: Binary<'a>, templates: Term<'a>) -> NifResult<Term<'a>> {
    let making = Making::new(env, &data, templates)?;
    let mut fields = Fields::new();
    let Some(whole) = Whole::parse(&data, |field| fields.push(field)) else {
        return Ok(atoms::slow().encode(env));
    };
    let Some(length) = whole.total_len().filter(|length| *length <= data.len()) else {
        return Ok(atoms::slow().encode(env));
    };
    let packets = making.packets(&whole, &fields, length);
    Ok(if length == data.len() {
        (atoms::ok(), packets).encode(env)
    } else {
        (atoms::more(), packets, data.make_subbinary(length, data.len() - length)?.to_term(env)).encode(env)
    })
}

/// Bound: as `parse_packet`, and a body that is moved or, when it came in pieces, copied: `LOCAL_QUEUE` / 2 at most.
#[rustler::nif]
fn recv_packet<'a>(env: Env<'a>, handle: Term<'a>, templates: Term<'a>) -> NifResult<Term<'a>> {
    let mut fields = Fields::new();
    let taken = TABLE.take_packet(&terms::handle_from(handle)?, &mut fields);
    answer(env, taken, &fields, templates)
}

/// What the table gave of a whole packet, for Erlang.
pub(crate) fn answer<'a>(
    env: Env<'a>,
    taken: Result<Option<(Bin, Whole)>, Closed>,
    fields: &Fields,
    templates: Term<'a>,
) -> NifResult<Term<'a>> {
    Ok(match taken {
        Err(Closed) => terms::closed(env),
        Ok(None) => atoms::slow().encode(env),
        Ok(Some((packet, whole))) => {
            let data: Binary<'a> = packet.into_term(env).decode()?;
            let making = Making::new(env, &data, templates)?;
            (atoms::ok(), making.packets(&whole, fields, data.len())).encode(env)
        }
    })
}

/// What is the same in every request.
struct Templates<'a> {
    /// For each of `FIELDS` and `OTHER_FIELDS`: index, name, and the name as it is mostly written.
    fields: &'a [[ErlNifTerm; 3]],
    /// HTTP/1.0 and HTTP/1.1.
    versions: [ErlNifTerm; 2],
    /// Each of `USUAL_FIELDS` as a packet.
    usual: &'a [ErlNifTerm],
}

fn templates_from<'a>(env: Env<'a>, templates: Term<'a>) -> Option<Templates<'a>> {
    let (mut arity, mut elements) = (0, std::ptr::null());
    // SAFETY: the array of the elements of a tuple lives as long as the tuple's environment, and the VM does not move it
    // while the NIF runs.
    let all = unsafe {
        if enif_get_tuple(env.as_c_arg(), templates.as_c_arg(), &raw mut arity, &raw mut elements) == 0 {
            return None;
        }
        std::slice::from_raw_parts(elements, arity as usize)
    };
    let (fields, rest) = all.split_at_checked(3 * (FIELDS.len() + OTHER_FIELDS.len()))?;
    let (versions, usual) = rest.split_first_chunk()?;
    (usual.len() == USUAL_FIELDS.len()).then_some(Templates {
        fields: fields.as_chunks().0,
        versions: *versions,
        usual,
    })
}

struct Making<'a, 'd> {
    env: Env<'a>,
    data: &'d Binary<'a>,
    templates: Templates<'a>,
    tag: ErlNifTerm,
}

impl<'a, 'd> Making<'a, 'd> {
    fn new(env: Env<'a>, data: &'d Binary<'a>, templates: Term<'a>) -> NifResult<Self> {
        let templates = templates_from(env, templates).ok_or(Error::BadArg)?;
        Ok(Self { env, data, templates, tag: atoms::http_header().encode(env).as_c_arg() })
    }

    /// The list of the packets of a request that is the first `length` bytes of the input.
    fn packets(&self, whole: &Whole, fields: &Fields, length: usize) -> Term<'a> {
        // Request line, fields, end of head, body.
        let mut list = [const { MaybeUninit::<ErlNifTerm>::uninit() }; MAX_HEADERS + 3];
        let mut count = 0;
        let mut push = |term| {
            list[count].write(term);
            count += 1;
        };
        push(self.request(whole));
        fields.iter().for_each(|field| push(self.field(field)));
        push(self.term(atoms::http_eoh()));
        if length > whole.head_len {
            push(self.part(whole.head_len, length - whole.head_len));
        }
        // SAFETY: the first `count` elements are initialised, with terms of this environment.
        unsafe {
            let list = enif_make_list_from_array(self.env.as_c_arg(), list.as_ptr().cast(), count as u32);
            Term::new(self.env, list)
        }
    }

    /// A part of the input.
    fn part(&self, start: usize, len: usize) -> ErlNifTerm {
        assert!(start + len <= self.data.len(), "spans lie in the input");
        // SAFETY: the part lies in the binary, as was just checked.
        unsafe {
            enif_make_sub_binary(self.env.as_c_arg(), self.data.to_term(self.env).as_c_arg(), start, len)
        }
    }

    fn span(&self, span: Span) -> ErlNifTerm {
        let (start, len) = span.place();
        self.part(start, len)
    }

    fn tuple<const N: usize>(&self, elements: [ErlNifTerm; N]) -> ErlNifTerm {
        // SAFETY: the elements are terms of this environment.
        unsafe { enif_make_tuple_from_array(self.env.as_c_arg(), elements.as_ptr(), N as u32) }
    }

    fn term(&self, value: impl Encoder) -> ErlNifTerm {
        value.encode(self.env).as_c_arg()
    }

    fn request(&self, whole: &Whole) -> ErlNifTerm {
        let method = match method_index(whole.method.of(self.data)) {
            Some(at) => terms::method(self.env, at).as_c_arg(),
            None => self.span(whole.method),
        };
        let uri = match whole.target {
            Target::Star => self.term(atoms::star()),
            Target::Path(path) => self.tuple([self.term(atoms::abs_path()), self.span(path)]),
        };
        let version = self.templates.versions[usize::from(whole.minor & 1)];
        self.tuple([self.term(atoms::http_request()), method, uri, version])
    }

    #[inline]
    fn field(&self, field: &Field) -> ErlNifTerm {
        let (place, exact) = match field.known {
            Known::Field(place) => return self.templates.usual[usize::from(place)],
            Known::ExactName(place) => (place, true),
            Known::Name(place) => (place, false),
            Known::No => return self.unknown_field(field),
        };
        let [index, name, usual] = self.templates.fields[usize::from(place)];
        let original = if exact { usual } else { self.span(field.name) };
        self.tuple([self.tag, index, name, original, self.span(field.value)])
    }

    fn unknown_field(&self, field: &Field) -> ErlNifTerm {
        let mut buffer = [0; MAX_TITLE_CASE];
        let name = field.name.of(self.data);
        let original = self.span(field.name);
        let given = match title_case(name, &mut buffer) {
            cased if name.len() > MAX_TITLE_CASE || cased == name => original,
            cased => terms::binary(self.env, cased).as_c_arg(),
        };
        self.tuple([self.tag, self.term(0), given, original, self.span(field.value)])
    }
}
