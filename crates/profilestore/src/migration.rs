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

use crate::error::{Error, ErrorKind, Result};

/// The meta tag that holds the version of a profile's data. The name is ProfileService's.
pub const DATA_VERSION: &str = "DataVersion";

/// The meta tag that says which data version a server must know at least to open the profile.
pub const READABLE_FROM: &str = "DataVersionReadableFrom";

type Apply =
    dyn Fn(&mut Value) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// The steps that bring stored data to the shape of today. See [`crate::StoreBuilder::migrations`].
///
/// ```
/// # use serde_json::{Value, json};
/// let migrations = profilestore::Migrations::new()
///     // 1: "gold" became "coins"; a server that knows only gold must not touch such data.
///     .step(1, |data| {
///         let gold = data["gold"].take();
///         data["coins"] = if gold.is_null() { json!(0) } else { gold };
///         data.as_object_mut().ok_or("the data is no object")?.remove("gold");
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
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the step to data version `number`, one more than the step before; the first may have
    /// any number from 1, when the steps before it are no longer needed; servers that do not know
    /// those are then refused. Servers that do not know the step refuse data of this version
    /// ([`ErrorKind::NewerData`]) and leave it alone.
    ///
    /// `apply` changes the stored JSON. When it gives an error or panics the profile is not opened
    /// ([`ErrorKind::Undecodable`]), and what is stored stays as it is. It may run many times on
    /// the same stored data, since the result is stored only when the profile is saved.
    #[must_use]
    pub fn step(self, number: u32, apply: impl StepFn) -> Self {
        self.push(number, false, apply)
    }

    /// The same, but servers that do not know the step may still open data of this version. What
    /// they save is marked with the version that they know, and comes here again: the step must
    /// bear with data that it has seen before, and what it added may be gone.
    #[must_use]
    pub fn readable_step(self, number: u32, apply: impl StepFn) -> Self {
        self.push(number, true, apply)
    }

    fn push(mut self, number: u32, readable: bool, apply: impl StepFn) -> Self {
        self.steps.push(Step { number, readable, apply: Arc::new(apply) });
        self
    }

    /// Says what is wrong with the numbers, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let first = self.steps.first()?.number;
        if first == 0 {
            return Some("the steps of migrations are numbered from 1".into());
        }
        let (at, step) =
            self.steps.iter().enumerate().find(|(at, step)| {
                usize::try_from(step.number).ok() != Some(first as usize + at)
            })?;
        Some(format!(
            "the steps of migrations follow one another: step=`{}` expected=`{}`",
            step.number,
            first as usize + at
        ))
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
        let target = self.target();
        let mut readable_from = number(tags, READABLE_FROM)?;
        if readable_from.is_none() && !self.steps.is_empty() {
            // Numbered by another program, which does not say which versions may open it.
            readable_from = number(tags, DATA_VERSION)?;
        }
        if let Some(readable_from) = readable_from.filter(|from| *from > u64::from(target)) {
            let found = number(tags, DATA_VERSION)?.unwrap_or(readable_from);
            return Err(Error::new(
                ErrorKind::NewerData,
                format!(
                    "the profile was saved by a newer version of the program, and this one must \
                        not open it; it is left alone: data version=`{found}` known=`{target}`"
                ),
            ));
        }
        Ok(())
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

    /// Brings stored JSON to the shape of today. None: it is there already.
    pub(crate) fn migrate(&self, json: &str, tags: &Map<String, Value>) -> Result<Option<Value>> {
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
            Error::new(
                ErrorKind::Undecodable,
                "the stored data is no \
                JSON",
            )
            .caused_by(error)
        })?;
        for step in steps {
            match catch_unwind(AssertUnwindSafe(|| (step.apply)(&mut data))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(failed(step.number, &error.to_string())),
                Err(_) => return Err(failed(step.number, "it panicked")),
            }
        }
        Ok(Some(data))
    }

    /// Marks what is about to be saved with the version that it is at.
    pub(crate) fn stamp(&self, tags: &mut Map<String, Value>) {
        if self.steps.is_empty() {
            // Saved by a server that knows no steps: it is at none. Tags of a game's own are left
            // alone.
            if tags.remove(READABLE_FROM).is_some() {
                tags.remove(DATA_VERSION);
            }
        } else {
            tags.insert(DATA_VERSION.into(), self.target().into());
            tags.insert(READABLE_FROM.into(), self.readable_from().into());
        }
    }
}

/// What a step does to the stored JSON.
pub trait StepFn:
    Fn(&mut Value) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static
{
}

impl<
    F: Fn(&mut Value) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
> StepFn for F
{
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
mod tests {
    use serde_json::json;

    use super::*;

    fn add(number: i64) -> impl StepFn {
        move |data: &mut Value| {
            data.as_array_mut().ok_or("no list")?.push(json!(number));
            Ok(())
        }
    }

    fn tags(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn from_3() -> Migrations {
        Migrations::new().step(3, add(3)).step(4, add(4)).readable_step(5, add(5))
    }

    #[test]
    fn exactly_the_missing_steps_run_in_order() {
        let run = |found: Value| from_3().migrate("[]", &tags(found)).unwrap();
        assert_eq!(run(json!({ "DataVersion": 2 })), Some(json!([3, 4, 5])));
        assert_eq!(run(json!({ "DataVersion": 4.0 })), Some(json!([5])));
        assert_eq!(run(json!({ "DataVersion": 5, "DataVersionReadableFrom": 4 })), None);
        assert_eq!(
            run(json!({ "DataVersion": 9, "DataVersionReadableFrom": 5 })),
            None,
            "newer, and readable"
        );
        assert_eq!(run(json!({ "DataVersion": u64::MAX, "DataVersionReadableFrom": 5 })), None);
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let kind = |migrations: &Migrations, found: Value| {
            migrations.migrate("[]", &tags(found)).unwrap_err().kind()
        };
        assert_eq!(
            kind(&from_3(), json!({ "DataVersion": 6, "DataVersionReadableFrom": 6 })),
            ErrorKind::NewerData
        );
        assert_eq!(
            kind(&Migrations::new(), json!({ "DataVersionReadableFrom": 1 })),
            ErrorKind::NewerData
        );
        assert_eq!(
            kind(&from_3(), json!({ "DataVersion": 6 })),
            ErrorKind::NewerData,
            "nobody says that it is readable"
        );
        assert_eq!(kind(&from_3(), json!({ "DataVersion": 1 })), ErrorKind::Undecodable, "too old");
        assert_eq!(kind(&from_3(), json!({ "DataVersion": "two" })), ErrorKind::Undecodable);
        let failing = Migrations::new().step(1, |_: &mut Value| Err("no".into()));
        assert!(
            failing.migrate("{}", &Map::new()).unwrap_err().to_string().contains("no: step=`1`")
        );
        let panicking = Migrations::new().step(1, |_: &mut Value| panic!("on purpose"));
        assert_eq!(
            panicking.migrate("{}", &Map::new()).unwrap_err().kind(),
            ErrorKind::Undecodable
        );
    }

    #[test]
    fn the_marks_say_what_older_servers_may_do() {
        let mut found = tags(json!({ "Mine": 1 }));
        from_3().stamp(&mut found);
        assert_eq!(
            Value::from(found.clone()),
            json!({ "Mine": 1, "DataVersion": 5, "DataVersionReadableFrom": 4 })
        );
        Migrations::new().stamp(&mut found);
        assert_eq!(Value::from(found), json!({ "Mine": 1 }));
        let mut dropped = tags(json!({}));
        Migrations::new().readable_step(5, add(5)).stamp(&mut dropped);
        assert_eq!(dropped["DataVersionReadableFrom"], 4, "who knows what the steps before were");
        let mut own = tags(json!({ "DataVersion": 2 }));
        Migrations::new().stamp(&mut own);
        assert_eq!(Value::from(own), json!({ "DataVersion": 2 }), "a game's own tag");
    }

    #[test]
    fn numbers_with_gaps_are_refused() {
        assert_eq!(from_3().problem(), None);
        assert!(Migrations::new().step(0, add(0)).problem().is_some());
        assert!(
            Migrations::new()
                .step(1, add(1))
                .step(3, add(3))
                .problem()
                .unwrap()
                .contains("expected=`2`")
        );
    }
}
