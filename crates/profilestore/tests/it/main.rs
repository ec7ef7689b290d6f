//! The library's integration tests, one binary.
#![allow(unreachable_pub, reason = "one binary of modules: nothing is public anyway")]

mod messages;
mod sessions;
mod world;
