//! What an edit of many profiles would do to what is saved, a piece at a time.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{
    Edit, ProfileKey,
    data_store::{
        DataStore, DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Returning, StoreError,
    },
    env::Env,
    filter::Filter,
    operator::{EditScope, JsonChange},
    record::Stored,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Counts;

/// How many profiles are shown with their changes.
const SAMPLES: usize = 20;

/// How many kinds of refusal are shown.
const REASONS: usize = 50;

/// How many keys are read at once.
const PAGE: usize = 128;

/// How long one answer looks.
const PATIENCE: Duration = Duration::from_secs(2);

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// What an edit would do.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Preview {
    /// What would become of the profiles that were looked at.
    pub(crate) counts: Counts,
    /// Of those that would be changed, the ones that a session holds. What it has not saved is not
    /// known here.
    pub(crate) held: u64,
    /// Why profiles would be refused.
    refused: Vec<Reason>,
    /// Some profiles with what would change.
    samples: Vec<Sample>,
    /// How many keys were looked at.
    scanned: u64,
    /// Ask again with it for the profiles that follow. Null: these were all.
    pub(crate) next_page_token: Option<String>,
    /// The same as a key: where it stopped.
    #[serde(skip)]
    pub(crate) next: Option<ProfileKey>,
}

/// Why profiles would be refused.
#[derive(Debug, Serialize, ToSchema)]
struct Reason {
    /// The reason.
    reason: String,
    /// How many profiles have it.
    count: u64,
    /// One of them.
    example: String,
}

/// What would change in one profile.
#[derive(Debug, Serialize, ToSchema)]
struct Sample {
    /// Its full name.
    profile: String,
    /// Each difference: `path`, `before`, `after`.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<JsonChange>,
}

enum Outcome {
    Changes(Vec<JsonChange>),
    NotMeant,
    Nothing,
    Refused(String),
}

/// The keys of some profiles.
pub(super) fn query(profiles: &EditScope, limit: usize) -> KeyQuery {
    let EditScope { store, scope, prefix, .. } = profiles.clone();
    let filter = prefix.map_or(KeyFilter::All, KeyFilter::Prefix);
    KeyQuery { store: Some(store), scope, filter, after: None, limit }
}

/// Looks at the profiles after a key, for two seconds at most.
pub(crate) async fn preview(
    store: &dyn DataStore,
    env: &Env,
    profiles: &EditScope,
    edit: &Edit,
    after: Option<ProfileKey>,
) -> Result<Preview, StoreError> {
    let mut query = KeyQuery { after, ..query(profiles, PAGE) };
    let until = env.now() + PATIENCE;
    let mut found = Preview::default();
    let mut reasons = BTreeMap::new();
    'pages: loop {
        let (page, next) = store.profiles(&query).await?;
        for state in page {
            if env.now() >= until && found.scanned > 0 {
                break 'pages;
            }
            found.scanned += 1;
            found.next = Some(state.key.clone());
            if !state.exists() {
                found.counts.skipped += 1;
                continue;
            }
            let outcome = match store.read_one(&state.key, VALUE).await {
                Ok((_, state)) => outcome(&state, edit, profiles.filter.as_ref()),
                Err(error @ StoreError::Damaged { .. }) => Outcome::Refused(error.to_string()),
                Err(error) => return Err(error),
            };
            found.add(&state, outcome, &mut reasons);
        }
        match next {
            Some(next) => query.after = Some(next),
            None => {
                found.next = None;
                break;
            }
        }
    }
    found.refused = reasons.into_values().collect();
    Ok(found)
}

impl Preview {
    fn add(&mut self, state: &KeyState, outcome: Outcome, reasons: &mut BTreeMap<String, Reason>) {
        let profile = state.key.to_string();
        match outcome {
            Outcome::Changes(changes) if changes.is_empty() => self.counts.unchanged += 1,
            Outcome::Changes(changes) => {
                self.counts.changed += 1;
                self.held += u64::from(state.lease.holder.is_some());
                if self.samples.len() < SAMPLES {
                    self.samples.push(Sample { profile, changes });
                }
            }
            Outcome::NotMeant => self.counts.unmatched += 1,
            Outcome::Nothing => self.counts.skipped += 1,
            Outcome::Refused(reason) => {
                self.counts.refused += 1;
                if reasons.len() < REASONS || reasons.contains_key(&reason) {
                    let new = || Reason { reason: reason.clone(), count: 0, example: profile };
                    reasons.entry(reason.clone()).or_insert_with(new).count += 1;
                }
            }
        }
    }
}

fn outcome(state: &KeyState, edit: &Edit, filter: Option<&Filter>) -> Outcome {
    // None: it was removed since it was listed.
    let Some(value) = state.value.as_deref() else { return Outcome::Nothing };
    match Stored::decode(value) {
        Ok(Stored::Profile(record)) => {
            if filter.is_some_and(|filter| filter.matches(&record.data).is_ok_and(|is| !is)) {
                return Outcome::NotMeant;
            }
            match edit.preview(&record.data) {
                Ok(changes) => Outcome::Changes(changes),
                Err(_) if edit.passes_over(&record.data) => Outcome::NotMeant,
                Err(error) => Outcome::Refused(error.to_string()),
            }
        }
        Ok(Stored::MessagesOnly(_)) => Outcome::Nothing,
        Ok(_) if filter.is_some() => Outcome::NotMeant,
        Ok(_) => Outcome::Refused("what is stored is not a profile".to_owned()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
