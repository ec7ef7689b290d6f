//! What an edit would do to saved data, counted as the edit itself counts.

use profilestore::{
    Edit, ProfileKey,
    data_store::{DataStoreExt, KeyState, Returning, StoreError},
    filter::Filter,
    operator::{EditScope, JsonChange},
    record::Stored,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    PAGE, query,
    report::{Counts, Without},
};
use crate::{
    app::App,
    output::{Failure, Status, chain, count, json_document, note, say},
    place::Store,
    search::scan_bar,
};

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// How many profiles a dry run shows.
const SAMPLE: usize = 5;

/// What an edit of many profiles would do.
#[derive(Serialize, Default)]
pub(super) struct Preview {
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Of all these, the ones that a session holds. What it has not saved is not known here.
    held: u64,
    sample: Vec<Sample>,
    refusals: Vec<Refusal>,
}

#[derive(Serialize)]
struct Sample {
    #[serde(flatten)]
    key: ProfileKey,
    changes: Vec<JsonChange>,
}

#[derive(Serialize)]
struct Refusal {
    #[serde(flatten)]
    key: ProfileKey,
    why: String,
}

/// What an edit would do to one key.
enum Outcome {
    Changes(Vec<JsonChange>),
    /// A test of it does not match.
    NotMeant(String),
    /// There is no profile.
    Nothing,
    Refused(String),
}

impl Preview {
    pub(super) async fn of(
        file: &Store,
        profiles: &EditScope,
        edit: &Edit,
    ) -> Result<Self, Failure> {
        let mut query = query(profiles);
        let mut found = Self::default();
        let bar = scan_bar();
        loop {
            let page = file.keys(&query).await?;
            query.after = page.last().map(|state| state.key.clone());
            let full = page.len() == PAGE;
            bar.inc(page.len() as u64);
            let (there, gone): (Vec<_>, Vec<_>) = page.into_iter().partition(KeyState::exists);
            found.counts.skipped += gone.len() as u64;
            let keys: Vec<ProfileKey> = there.into_iter().map(|state| state.key).collect();
            found.add_all(file, &keys, edit, profiles.filter.as_ref()).await?;
            if !full {
                bar.finish_and_clear();
                return Ok(found);
            }
        }
    }

    async fn add_all(
        &mut self,
        file: &Store,
        keys: &[ProfileKey],
        edit: &Edit,
        search: Option<&Filter>,
    ) -> Result<(), Failure> {
        let outcome = |state: &KeyState| outcome(state, edit, search);
        match file.read(keys, VALUE).await {
            Err(StoreError::Damaged { .. }) => {}
            read => {
                read?.states.iter().for_each(|state| self.add(state, outcome(state)));
                return Ok(());
            }
        }
        for key in keys {
            match file.read_one(key, VALUE).await {
                Ok((_, state)) => self.add(&state, outcome(&state)),
                Err(error @ StoreError::Damaged { .. }) => {
                    let (_, state) = file.read_one(key, Returning::HEAD).await?;
                    self.add(&state, Outcome::Refused(chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn add(&mut self, state: &KeyState, outcome: Outcome) {
        self.held += u64::from(state.lease.holder.is_some());
        let key = state.key.clone();
        match outcome {
            Outcome::Changes(changes) if changes.is_empty() => self.counts.unchanged += 1,
            Outcome::Changes(changes) => {
                self.counts.edited += 1;
                if self.sample.len() < SAMPLE {
                    self.sample.push(Sample { key, changes });
                }
            }
            Outcome::NotMeant(_) => self.counts.unmatched += 1,
            Outcome::Nothing => self.counts.skipped += 1,
            Outcome::Refused(why) => {
                self.counts.refused += 1;
                if self.refusals.len() < SAMPLE {
                    self.refusals.push(Refusal { key, why });
                }
            }
        }
    }

    /// What people see of it.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Sample { key, changes } in &self.sample {
            lines.push(key.to_string());
            lines.extend(changes.iter().map(change_line));
        }
        for Refusal { key, why } in &self.refusals {
            lines.push(key.to_string());
            lines.push(format!("  would be refused: {why}"));
        }
        lines.push(format!(
            "{} would be edited, {} of those looked at are online",
            count(self.counts.edited, "profile", "profiles"),
            self.held
        ));
        lines.push(self.counts.line(Without::Profile));
        lines
    }
}

pub(super) async fn dry_run_one(
    app: &App,
    file: &Store,
    key: &ProfileKey,
    edit: &Edit,
) -> Result<Status, Failure> {
    let changes = changes_of_one(file, key, edit).await?;
    match app.json {
        true => json_document(&Sample { key: key.clone(), changes })?,
        false => changes.iter().map(change_line).try_for_each(|line| say_line(&line))?,
    }
    Ok(Status::Fine)
}

/// The same on standard error, before the operator is asked.
pub(super) async fn show_before_asking(
    file: &Store,
    key: &ProfileKey,
    edit: &Edit,
) -> Result<(), Failure> {
    for change in changes_of_one(file, key, edit).await? {
        note(format_args!("{}", change_line(&change)));
    }
    Ok(())
}

async fn changes_of_one(
    file: &Store,
    key: &ProfileKey,
    edit: &Edit,
) -> Result<Vec<JsonChange>, Failure> {
    let (_, state) = file.read_one(key, Returning::ALL).await?;
    let none = || Failure::NotFound(format!("there is no such profile: key=`{key}`"));
    if !state.exists() {
        return Err(none());
    }
    match outcome(&state, edit, None) {
        Outcome::Changes(changes) => Ok(changes),
        Outcome::Nothing => Err(none()),
        Outcome::NotMeant(why) | Outcome::Refused(why) => Err(Failure::Work(why)),
    }
}

fn outcome(state: &KeyState, edit: &Edit, search: Option<&Filter>) -> Outcome {
    let not_searched_for = || Outcome::NotMeant("it is not searched for".to_owned());
    match Stored::decode(state.value.as_deref().unwrap_or_default()) {
        Ok(Stored::Profile(record))
            if search.is_some_and(|search| search.matches(&record.data).is_ok_and(|is| !is)) =>
        {
            not_searched_for()
        }
        Ok(Stored::Foreign(_)) if search.is_some() => not_searched_for(),
        Ok(Stored::Profile(record)) => match edit.preview(&record.data) {
            Ok(changes) => Outcome::Changes(changes),
            Err(error) if edit.passes_over(&record.data) => Outcome::NotMeant(chain(&error)),
            Err(error) => Outcome::Refused(chain(&error)),
        },
        Ok(Stored::MessagesOnly(_)) => Outcome::Nothing,
        Ok(_) => Outcome::Refused("what is stored is not a profile".to_owned()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn change_line(JsonChange { path, before, after, .. }: &JsonChange) -> String {
    let shown = |value: &Option<Value>| {
        value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string)
    };
    format!("  {path}: {} -> {}", shown(before), shown(after))
}

pub(super) fn say_line(line: &str) -> Result<(), Failure> {
    say(format_args!("{line}"))
}
