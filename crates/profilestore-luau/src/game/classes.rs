//! What is there of Roblox's classes.

use parking_lot::Mutex;

use super::{Game, Plays, Time};
use crate::vm::Failed;

/// What there is of a class, beyond properties that are just kept and beyond what it has of the
/// class that it is derived from. See [`Game::classes`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Methods that scripts can call.
    pub methods: Vec<String>,
    /// Events that happen.
    pub events: Vec<String>,
    /// Properties that say or do something.
    pub properties: Vec<String>,
    /// Events that nothing makes happen, and methods that do nothing, as there is no engine.
    pub idle: Vec<String>,
}

impl Game {
    /// The classes of which there is more than their properties, by name.
    pub fn classes() -> Result<Vec<Class>, Failed> {
        let classes = Mutex::default();
        let _ = Self::builder().time(Time::Virtual).run_through(Plays::Nothing(&classes))?;
        Ok(classes.into_inner())
    }
}
