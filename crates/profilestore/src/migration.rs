//! Migrations of data: numbered steps from one shape of the stored JSON to the next.
//!
//! The version of a profile's data is its meta tag `DataVersion`, which is where ProfileService's
//! documentation has games keep it, so it survives import, export and erasure of knowledge about
//! us. Beside it [`READABLE_FROM`] says which servers may open the data: those that know at least
//! the last step that older ones could not live with. Both are written with every save of a store
//! that has migrations, and looked at before a profile is taken: a server that is too old, or whose
//! step fails, leaves the profile as it is and unlocked.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

/// The meta tag that holds the version of a profile's data. The name is ProfileService's.
pub const DATA_VERSION: &str = "DataVersion";

/// The meta tag that says which data version a server must know at least to open the profile.
pub const READABLE_FROM: &str = "DataVersionReadableFrom";

/// What a step answers: why it cannot be done, if so.
pub type StepResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Apply = dyn Fn(&mut Value, &StepContext<'_>) -> StepResult + Send + Sync;

/// The steps that bring stored data to the shape of today. See [`crate::StoreBuilder::migrations`].
///
/// Data that was saved without migrations is version 0. So the first step of a program is 1, and
/// makes version 1 of it.
///
/// ```
/// # use serde_json::{Value, json};
/// let migrations = profilestore::Migrations::new()
///     // 1: "gold" became "coins"; a server that knows only gold must not touch such data.
///     .step(1, |data| {
///         let fields = data.as_object_mut().ok_or("the data is no object")?;
///         let gold = fields.remove("gold").unwrap_or(json!(0));
///         fields.entry("coins").or_insert(gold);
///         Ok(())
///     })
///     // 2: pets are new; servers of before may go on, and what they save is brought here again.
///     .readable_step(2, |data| {
///         if data["pets"].is_null() {
///             data["pets"] = json!([]);
///         }
///         Ok(())
///     });
/// ```
#[derive(Clone, Default)]
pub struct Migrations {
    /// Where they begin, if the steps before are gone.
    starts_at: Option<u32>,
    steps: Vec<Step>,
}

#[derive(Clone)]
struct Step {
    number: u32,
    readable: bool,
    apply: Arc<Apply>,
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|step| (step.number, step.readable))).finish()
    }
}

impl Migrations {
    /// None yet. The first step is 1: data that was saved without migrations is version 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, and the first one is going to be step `number`: those before it are no longer in
    /// the program. Data that needs one of them is not opened ([`ErrorKind::Undecodable`]), which
    /// shuts out every profile that was saved without migrations: that is version 0. Servers that
    /// do not know the missing steps are refused, as none can tell whether they could live with
    /// them.
    pub fn starting_at(number: u32) -> Self {
        Self { starts_at: Some(number), steps: Vec::new() }
    }

    /// Adds the step to data version `number`, one more than the step before. The first is 1, and
    /// gets the data that was saved without migrations, which is version 0. Servers that do not
    /// know the step refuse data of this version ([`ErrorKind::NewerData`]) and leave it alone.
    ///
    /// `apply` changes the stored JSON. When it gives an error or panics the profile is not opened
    /// ([`ErrorKind::Undecodable`]), and what is stored stays as it is. It runs at each look at
    /// the same stored data, be it a read or a start, since the result is stored only when the
    /// profile is saved. So it must not draw lots: see [`Migrations::step_with`].
    #[must_use]
    pub fn step(self, number: u32, apply: impl StepFn) -> Self {
        self.push(number, false, move |data: &mut Value, _: &StepContext<'_>| apply(data))
    }

    /// The same for a step that makes something up, such as names of unique items: it gets the
    /// profile's name, and a seed that is the same at each look. What it makes of these is the same
    /// each time too.
    ///
    /// ```
    /// # use serde_json::json;
    /// // 1: each pet becomes an item of its own.
    /// let migrations = profilestore::Migrations::new().step_with(1, |data, context| {
    ///     let seed = context.seed();
    ///     for (at, pet) in data["pets"].as_array_mut().ok_or("no pets")?.iter_mut().enumerate() {
    ///         *pet = json!({ "kind": pet.take(), "id": format!("{seed:032x}-{at}") });
    ///     }
    ///     Ok(())
    /// });
    /// ```
    #[must_use]
    pub fn step_with(
        self,
        number: u32,
        apply: impl Fn(&mut Value, &StepContext<'_>) -> StepResult + Send + Sync + 'static,
    ) -> Self {
        self.push(number, false, apply)
    }

    /// The same, but servers that do not know the step may still open data of this version. What
    /// they save is marked with the version that they know, and comes here again: the step must
    /// bear with data that it has seen before, and what it added may be gone.
    #[must_use]
    pub fn readable_step(self, number: u32, apply: impl StepFn) -> Self {
        self.push(number, true, move |data: &mut Value, _: &StepContext<'_>| apply(data))
    }

    /// The same with what [`Migrations::step_with`] gives.
    #[must_use]
    pub fn readable_step_with(
        self,
        number: u32,
        apply: impl Fn(&mut Value, &StepContext<'_>) -> StepResult + Send + Sync + 'static,
    ) -> Self {
        self.push(number, true, apply)
    }

    fn push(
        mut self,
        number: u32,
        readable: bool,
        apply: impl Fn(&mut Value, &StepContext<'_>) -> StepResult + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step { number, readable, apply: Arc::new(apply) });
        self
    }

    /// Says what is wrong with the numbers, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let expected = self.starts_at.unwrap_or(1);
        let Some(first) = self.steps.first().map(|step| step.number) else {
            return self.starts_at.map(|number| {
                format!("the migrations are to start at step `{number}`, and there is no step")
            });
        };
        if first == 0 || expected == 0 {
            return Some(
                "the steps of migrations are numbered from 1: data saved without migrations is \
                version 0, and step 1 makes version 1 of it"
                    .into(),
            );
        }
        if self.starts_at.is_none() && first > 1 {
            return Some(format!(
                "the first step of the migrations is `{first}`, so data saved without migrations, \
                which is version 0, could not be opened: number the first step 1, or, if no such \
                data is left, begin with `Migrations::starting_at({first})`"
            ));
        }
        (expected..).zip(&self.steps).find(|(expected, step)| step.number != *expected).map(
            |(expected, step)| {
                format!(
                    "the steps of migrations follow one another: step=`{}` expected=`{expected}`",
                    step.number
                )
            },
        )
    }

    /// The data version of today.
    fn target(&self) -> u32 {
        self.steps.last().map_or(0, |step| step.number)
    }

    /// The version that a server must know to open data of today. Of steps that are not here any
    /// more it is not known whether older servers could live with them.
    fn readable_from(&self) -> u32 {
        let before = self.steps.first().map_or(0, |first| first.number - 1);
        self.steps.iter().rev().find(|step| !step.readable).map_or(before, |step| step.number)
    }

    /// Fails with [`ErrorKind::NewerData`] when this server is too old for data with these tags.
    pub(crate) fn check_not_newer(&self, tags: &Map<String, Value>) -> Result<()> {
        let known = DataVersion { version: self.target(), readable_from: self.readable_from() };
        DataVersion::check_not_newer((!self.steps.is_empty()).then_some(known), tags)
    }

    /// The steps that data with these tags still needs. Fails when this server is too old for it,
    /// or too new.
    fn missing(&self, tags: &Map<String, Value>) -> Result<&[Step]> {
        self.check_not_newer(tags)?;
        let Some(first) = self.steps.first() else { return Ok(&[]) };
        let found = number(tags, DATA_VERSION)?.unwrap_or(0);
        let next = found.saturating_add(1);
        if next < u64::from(first.number) {
            return Err(Error::new(
                ErrorKind::Undecodable,
                format!(
                    "the profile's data is older than the oldest migration: data \
                        version=`{found}` first step=`{}`",
                    first.number
                ),
            ));
        }
        let done = usize::try_from(next - u64::from(first.number)).unwrap_or(usize::MAX);
        Ok(self.steps.get(done..).unwrap_or_default())
    }

    /// Brings a profile's stored JSON to the shape of today. None: it is there already.
    pub(crate) fn migrate(
        &self,
        key: &ProfileKey,
        json: &str,
        tags: &Map<String, Value>,
    ) -> Result<Option<Value>> {
        let steps = self.missing(tags)?;
        if steps.is_empty() {
            return Ok(None);
        }
        let failed = |number: u32, why: &str| {
            Error::new(
                ErrorKind::Undecodable,
                format!(
                    "a migration failed, and the profile was left as it is: {why}: step=`{number}`"
                ),
            )
        };
        let mut data: Value = serde_json::from_str(json).map_err(|error| {
            Error::new(ErrorKind::Undecodable, "the stored data is no JSON").caused_by(error)
        })?;
        for step in steps {
            let context = StepContext { key, step: step.number };
            match catch_unwind(AssertUnwindSafe(|| (step.apply)(&mut data, &context))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(failed(step.number, &error.to_string())),
                Err(_) => return Err(failed(step.number, "it panicked")),
            }
        }
        Ok(Some(data))
    }

    /// Marks what is about to be saved with the version that it is at.
    pub(crate) fn stamp(&self, tags: &mut Map<String, Value>) {
        let known = DataVersion { version: self.target(), readable_from: self.readable_from() };
        DataVersion::stamp((!self.steps.is_empty()).then_some(known), tags);
    }
}

/// The data version that a program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataVersion {
    /// What it saves is at this version.
    pub version: u32,
    /// The version that a program must know at least to open what it saves.
    pub readable_from: u32,
}

impl DataVersion {
    /// Fails with [`ErrorKind::NewerData`] when a program that knows this version, or none, is too
    /// old for data with these tags.
    pub(crate) fn check_not_newer(known: Option<Self>, tags: &Map<String, Value>) -> Result<()> {
        let mut readable_from = number(tags, READABLE_FROM)?;
        if readable_from.is_none() && known.is_some() {
            // Numbered by another program, which does not say which versions may open it.
            readable_from = number(tags, DATA_VERSION)?;
        }
        let known = known.map_or(0, |known| known.version);
        if let Some(readable_from) = readable_from.filter(|from| *from > u64::from(known)) {
            let found = number(tags, DATA_VERSION)?.unwrap_or(readable_from);
            return Err(Error::new(
                ErrorKind::NewerData,
                format!(
                    "the profile was saved by a newer version of the program, and this one must \
                        not open it; it is left alone: data version=`{found}` known=`{known}`"
                ),
            ));
        }
        Ok(())
    }

    /// Marks what is about to be saved by a program that knows this version, or none.
    pub(crate) fn stamp(known: Option<Self>, tags: &mut Map<String, Value>) {
        match known {
            Some(known) => {
                tags.insert(DATA_VERSION.into(), known.version.into());
                tags.insert(READABLE_FROM.into(), known.readable_from.into());
            }
            // Saved by a server that knows no steps: it is at none. Tags of a game's own are left
            // alone.
            None => {
                if tags.remove(READABLE_FROM).is_some() {
                    tags.remove(DATA_VERSION);
                }
            }
        }
    }
}

/// What a step does to the stored JSON.
pub trait StepFn: Fn(&mut Value) -> StepResult + Send + Sync + 'static {}

impl<F: Fn(&mut Value) -> StepResult + Send + Sync + 'static> StepFn for F {}

/// What a step may know beside the data. See [`Migrations::step_with`].
#[derive(Debug)]
pub struct StepContext<'a> {
    key: &'a ProfileKey,
    step: u32,
}

impl StepContext<'_> {
    /// The profile's full name.
    pub fn key(&self) -> &ProfileKey {
        self.key
    }

    /// A number that follows from the profile's name and the data version that the step starts
    /// from, and from nothing else: the same at each look, on each server, in each version of this
    /// library; another one for each profile and each step. It is no secret.
    pub fn seed(&self) -> u128 {
        let mut hash = Sha256::new();
        for name in [self.key.store(), self.key.scope(), self.key.key()] {
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
        }
        hash.update((self.step - 1).to_be_bytes());
        let mut seed = [0; 16];
        seed.copy_from_slice(&hash.finalize()[..16]);
        u128::from_be_bytes(seed)
    }
}

/// A tag that must be a whole number of at least 0 if it is there.
fn number(tags: &Map<String, Value>, name: &str) -> Result<Option<u64>> {
    let whole = |value: &Value| {
        value
            .as_u64()
            .or_else(|| value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64))
    };
    match tags.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => whole(value).map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::Undecodable,
                format!(
                    "the meta tag that numbers the data is no whole number: tag=`{name}` \
                    found=`{value}`"
                ),
            )
        }),
    }
}

#[cfg(test)]
mod tests;
