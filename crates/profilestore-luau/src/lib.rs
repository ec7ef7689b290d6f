//! Code written for Roblox runs unmodified, off Roblox: the modules ProfileStore and ProfileService
//! with the services under them, on [`profilestore`].
//!
//! A [`Game`] is a number of game servers, each with a Luau virtual machine of its own, on one
//! store. Everything runs on one thread: in real time, or in virtual time, where waiting costs
//! nothing and the same seed gives the same run.
#![deny(missing_docs)]

mod classes;
mod game;
mod host;
mod http;
mod modules;
mod output;
mod project;
mod services;
mod specs;
mod vm;

pub use game::{Class, Game, GameBuilder, Report, Script, Time};
pub use http::{HttpHost, HttpHostError};
pub use output::{Console, Line, Output, Recorder};
pub use project::{Tree, TreeError, is_project};
pub use services::players::{Plan, PlanError};
pub use specs::{Outcome, SpecOptions, SpecReport, SpecResult};
pub use vm::{Failed, Limits};
