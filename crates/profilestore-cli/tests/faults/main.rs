//! Faults of real parts under real processes: the demonstration plays, a test breaks something
//! beneath it, and its audit says afterwards whether every acknowledged change, every coin, message
//! and item is there exactly once, and nobody was thrown out.
//!
//! Each is a short run in the gate. `PROFILESTORE_FAULT_SECONDS` makes the time of play longer, and
//! with it the faults more. What each has shown stands in `docs/faults.md`.

mod floods;
mod nats;
mod play;
mod postgres;
mod rolls;
mod serve;
mod servers;
