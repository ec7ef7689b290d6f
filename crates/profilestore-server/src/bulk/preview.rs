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
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Counts,
    back::{BackTo, Made},
};

/// How many profiles are shown with their changes, unless the caller says how many.
const SAMPLES: usize = 20;

/// How many bytes of changes one answer has, and one profile more.
const SAMPLE_BYTES: usize = 4 << 20;

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
    /// How many bytes the samples have.
    #[serde(skip)]
    bytes: usize,
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

/// What is tried.
pub(crate) enum Tried {
    /// The same edit for all of them.
    Edit(Edit),
    /// Each is put back to what it was.
    Back(BackTo),
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

/// Looks at the profiles after a key, for two seconds at most. With a number of samples it ends
/// when so many are shown, so that a caller who goes on sees every one.
pub(crate) async fn preview(
    store: &dyn DataStore,
    env: &Env,
    profiles: &EditScope,
    tried: &Tried,
    after: Option<ProfileKey>,
    samples: Option<usize>,
) -> Result<Preview, StoreError> {
    let mut query = KeyQuery { after, ..query(profiles, PAGE) };
    let until = env.now() + PATIENCE;
    let mut found = Preview::default();
    let mut reasons = BTreeMap::new();
    'pages: loop {
        let (page, next) = store.profiles(&query).await?;
        for state in page {
            let is_full = samples
                .is_some_and(|most| found.samples.len() >= most || found.bytes >= SAMPLE_BYTES);
            if is_full || (env.now() >= until && found.scanned > 0) {
                break 'pages;
            }
            found.scanned += 1;
            found.next = Some(state.key.clone());
            if !state.exists() {
                found.counts.skipped += 1;
                continue;
            }
            let outcome = match store.read_one(&state.key, VALUE).await {
                Ok((_, state)) => outcome(store, &state, tried, profiles.filter.as_ref()).await?,
                Err(error @ StoreError::Damaged { .. }) => Outcome::Refused(error.to_string()),
                Err(error) => return Err(error),
            };
            found.add(&state, outcome, &mut reasons, samples.unwrap_or(SAMPLES));
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
    fn add(
        &mut self,
        state: &KeyState,
        outcome: Outcome,
        reasons: &mut BTreeMap<String, Reason>,
        samples: usize,
    ) {
        let profile = state.key.to_string();
        match outcome {
            Outcome::Changes(changes) if changes.is_empty() => self.counts.unchanged += 1,
            Outcome::Changes(changes) => {
                self.counts.changed += 1;
                self.held += u64::from(state.lease.holder.is_some());
                if self.samples.len() < samples {
                    self.bytes += serde_json::to_string(&changes).map_or(0, |json| json.len());
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

async fn outcome(
    store: &dyn DataStore,
    state: &KeyState,
    tried: &Tried,
    filter: Option<&Filter>,
) -> Result<Outcome, StoreError> {
    // None: it was removed since it was listed.
    let Some(value) = state.value.as_deref() else { return Ok(Outcome::Nothing) };
    Ok(match Stored::decode(value) {
        Ok(Stored::Profile(record)) => {
            if filter.is_some_and(|filter| filter.matches(&record.data).is_ok_and(|is| !is)) {
                return Ok(Outcome::NotMeant);
            }
            match tried {
                Tried::Edit(edit) => of_edit(edit, &record.data),
                Tried::Back(back) => match back.edit_of(store, state, &record.data).await? {
                    Made::Edit(edit) => of_edit(&edit, &record.data),
                    Made::Same => Outcome::Changes(Vec::new()),
                    Made::NotMeant => Outcome::NotMeant,
                    Made::Refused(why) => Outcome::Refused(why),
                },
            }
        }
        Ok(Stored::MessagesOnly(_)) => Outcome::Nothing,
        Ok(_) if filter.is_some() => Outcome::NotMeant,
        Ok(_) => Outcome::Refused("what is stored is not a profile".to_owned()),
        Err(error) => Outcome::Refused(error.to_string()),
    })
}

fn of_edit(edit: &Edit, data: &RawValue) -> Outcome {
    match edit.preview(data) {
        Ok(changes) => Outcome::Changes(changes),
        Err(_) if edit.passes_over(data) => Outcome::NotMeant,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
