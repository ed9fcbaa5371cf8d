//! `docs/http.md` says what the code says.

use std::collections::BTreeSet;

use megaphone_core::http::HeadError as E;
use megaphone_core::http::chunked::ChunkError as C;

/// The two first cells of each row of the first table below a heading.
fn table(heading: &str) -> BTreeSet<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/http.md");
    let document = std::fs::read_to_string(path).expect("docs/http.md");
    let section = document.split_once(heading).expect("the heading").1;
    let rows: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with("| "))
        .take_while(|line| line.starts_with("| "))
        .collect();
    let cells = rows.iter().skip(2).map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().to_owned());
        (cells.next().expect("a status"), cells.next().expect("a reason"))
    });
    let set: BTreeSet<_> = cells.collect();
    assert_eq!(set.len() + 2, rows.len(), "a row twice");
    set
}

/// The table of refusals holds every error of heads and of chunks with its status and its text, and nothing else.
#[test]
fn every_refusal_is_documented() {
    let heads = [
        E::RequestLine,
        E::Target,
        E::TargetTooLong,
        E::Connect,
        E::Version,
        E::FieldName,
        E::FieldValue,
        E::LineEnd,
        E::TooLarge,
        E::TooManyFields,
        E::EmptyLines,
        E::Host,
        E::ContentLength,
        E::BodyTooLarge,
        E::LengthAndCoding,
        E::TransferEncoding,
        E::UnknownCoding,
        E::Expectation,
    ];
    let chunks = [C::Malformed, C::TooLarge, C::Overhead];
    let all = heads.iter().map(|error| (error.status().to_string(), error.to_string()));
    let all: BTreeSet<_> =
        all.chain(chunks.iter().map(|error| (error.status().to_string(), error.to_string()))).collect();
    assert_eq!(table("## What is refused"), all);
}
