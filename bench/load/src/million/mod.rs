//! Very many users with very little for each: what a connection manager says on its link is said here without any client
//! behind it, so that a million users need neither sockets nor much memory. They log in, are idle, write to each other and
//! leave. Where they are to have real clients, links go to processes that have these, instead of to ejabberd.
//!
//! * [`engine`]: the event loop; the place to begin reading
//! * [`link`]: one link to ejabberd
//! * [`carrier`]: the other end of a link whose users have real clients
//! * [`crowd`]: what users do when something comes for them
//! * [`user`]: what is kept of a user who is online: [`user::User`] and a name, some 60 bytes
//! * [`login`]: what is kept of one who logs in
//! * [`chat`]: messages between users, and what became of them
//! * [`pace`]: how fast users come and go

pub mod carrier;
pub mod chat;
pub mod crowd;
pub mod engine;
pub mod link;
pub mod login;
pub mod pace;
pub mod user;
