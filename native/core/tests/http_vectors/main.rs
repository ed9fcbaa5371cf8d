//! Requests by vector: for each point that the request tests of llhttp and of picohttpparser make, bytes of our own
//! that make the same one, what becomes of them here, and where and why that differs from those parsers.
//!
//! Each vector is judged three times over: by the head parser and the chunked decoder, by the client state machine,
//! and by that again for each way to cut the bytes in two and for single bytes. All must say the same.
//!
//! Where nothing else is said, llhttp is meant as it is by default, without its lenient flags.
//!
//! | module | what it is |
//! | --- | --- |
//! | `vector` | what a vector is, and how it is checked |
//! | `world` | the surroundings of a client, which record what it does |
//! | `transfer_encoding` to `lenient` | points of llhttp, a module for each of its files (`finish` and `pausing` in `sample`) |
//! | `pico_request`, `pico_chunked` | points of picohttpparser |
//! | `document` | `docs/http.md` against the code |
//! | `exchange` | what only a whole exchange shows: interim answers, order of answers, tunnels, long bodies |

mod connection;
mod content_length;
mod document;
mod exchange;
mod invalid;
mod lenient;
mod method;
mod pico_chunked;
mod pico_request;
mod pipelining;
mod sample;
mod transfer_encoding;
mod uri;
mod vector;
mod world;
