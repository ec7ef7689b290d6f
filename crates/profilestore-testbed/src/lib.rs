//! What the tests break: real servers of their own, each in a folder and on a port of its own, and
//! the connections to them.
//!
//! A server ends when its value is dropped, by its process id.
#![deny(missing_docs)]

mod crowd;
mod fleet;
mod frames;
mod game_client;
mod json;
mod load_client;
mod nats;
mod patroni;
mod postgres;
mod process;
mod proxy;

pub use crowd::{Crowd, CrowdPlan, CrowdReport, Gap, Over};
pub use fleet::{Fleet, Report};
pub use frames::almost_a_frame;
pub use game_client::GameClient;
pub use json::{any_json, hostile_json};
pub use load_client::LoadClient;
pub use nats::{NatsServer, nats_cluster};
pub use patroni::PatroniCluster;
pub use postgres::PostgresServer;
pub use process::{Process, children, free_port, kill, send};
pub use proxy::{Link, Proxy};
pub use rustix::process::Signal;
