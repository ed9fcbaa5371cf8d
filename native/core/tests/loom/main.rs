//! Models of the table: small scenes of two to four threads whose operations meet.
//!
//! Built with `--cfg loom`, each scene runs once for every order in which its threads can have met, up to the number of
//! preemptions that is written next to it. `LOOM_MAX_PREEMPTIONS` sets another number for all of them: 1 for a quick
//! look. Built without, the same scenes run on real threads, with the real locks and queues, many times over
//! (`MODEL_ROUNDS`): that proves nothing about orders, but it is the code as it is shipped.
//!
//! A scene that fails prints what it found wrong; how to make loom tell the order that led there is in
//! `docs/testing.md`.

mod connections;
mod links;
mod owners;
mod polls;
mod world;
