//! Places of many profiles, put back to what they were at a time.
//!
//! Each profile gets an edit of its own, made from its history, under the identity of the one
//! operation. So the library books each of them once, however often a run is repeated, and undoes
//! them together.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use profilestore::{
    Attribution, Edit, Error, ErrorKind, Operator, ProfileKey,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{DataStore, DataStoreExt as _, KeyState, Returning, StoreError},
    env::Env,
    history::version_at,
    operator::{BulkProgress, BulkReport, EditScope},
    record::Stored,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::preview;
use crate::problem::Problem;

/// What the operation's own entry in the audit log is called.
const PUT_BACK: &str = "put back";

/// How many places one operation puts back.
const MAX_PATHS: usize = 20;

/// How many keys are listed at once, and how many profiles are worked on at once.
const PAGE: usize = 128;
const AT_ONCE: usize = 16;

/// How long a profile's game server is waited for before the next profile has its turn, and how
/// long all that have not answered are waited for in the end.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
const LAST_PATIENCE: Duration = Duration::from_secs(60);

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// Which places, and what they become again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BackTo {
    /// The time, Unix milliseconds.
    pub(crate) at_ms: i64,
    /// The places: JSON pointers (RFC 6901).
    pub(crate) paths: Vec<String>,
}

/// What putting back is for one profile.
pub(crate) enum Made {
    /// This edit.
    Edit(Edit),
    /// Nothing: the places are as they were.
    Same,
    /// Nothing: there was no profile then.
    NotMeant,
    /// It cannot be done.
    Refused(String),
}

impl BackTo {
    /// Whether it can be done at all.
    pub(crate) fn check(&self, now_ms: i64) -> Result<(), Problem> {
        if !(1..=MAX_PATHS).contains(&self.paths.len()) {
            let given = self.paths.len();
            let detail = format!("1 to {MAX_PATHS} places are put back: given=`{given}`");
            return Err(Problem::invalid(detail));
        }
        let is_wrong = |path: &&String| !path.is_empty() && !path.starts_with('/');
        if let Some(path) = self.paths.iter().find(is_wrong) {
            let detail = format!("a place is a JSON pointer such as /coins: given=`{path}`");
            return Err(Problem::invalid(detail));
        }
        if self.at_ms > now_ms {
            return Err(Problem::invalid("the time to go back to is still to come"));
        }
        Ok(())
    }

    /// The edit that puts the places of a profile back, whose data now is `data`.
    pub(crate) async fn edit_of(
        &self,
        store: &dyn DataStore,
        state: &KeyState,
        data: &RawValue,
    ) -> Result<Made, StoreError> {
        let then = match version_at(store, state, self.at_ms).await {
            Ok(then) => then,
            Err(error @ StoreError::Damaged { .. }) => return Ok(Made::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        let Some(then) = then else {
            return Ok(if state.created_ms > self.at_ms {
                Made::NotMeant
            } else {
                Made::Refused("no version of that time is kept any more".to_owned())
            });
        };
        // It was removed then, or held messages only.
        let Some(value) = then.value else { return Ok(Made::NotMeant) };
        Ok(match Stored::decode(&value) {
            Ok(Stored::Profile(record)) => {
                self.between(&record.data, data).unwrap_or_else(Made::Refused)
            }
            Ok(Stored::MessagesOnly(_)) => Made::NotMeant,
            Ok(_) => Made::Refused("what was stored then is not a profile".to_owned()),
            Err(error) => Made::Refused(format!("the version of that time: {error}")),
        })
    }

    /// The same from what was there then and what is there now. Values stay the text that they are.
    fn between(&self, then: &RawValue, now: &RawValue) -> Result<Made, String> {
        let mut steps: BTreeMap<&str, Option<&RawValue>> = BTreeMap::new();
        for path in &self.paths {
            let path = outside_of_lists(path, [then, now])?;
            let (was, is) = (at(then, path)?, at(now, path)?);
            if was.map(RawValue::get) != is.map(RawValue::get) {
                steps.insert(path, was);
            }
        }
        if steps.is_empty() {
            return Ok(Made::Same);
        }
        let mut patch = String::new();
        for (path, was) in steps {
            let path = serde_json::to_string(path).map_err(|error| error.to_string())?;
            let step = match was {
                Some(was) => write!(patch, r#",{{"op":"set","path":{path},"value":{was}}}"#),
                None => write!(patch, r#",{{"op":"remove","path":{path}}}"#),
            };
            step.map_err(|error| error.to_string())?;
        }
        let edit = Edit::from_patch(&format!("[{}]", &patch[1..])).and_then(|edit| {
            edit.check()?;
            Ok(edit)
        });
        let edit =
            edit.map_err(|error| format!("what was there then cannot be put back: {error}"))?;
        Ok(match edit.preview(now) {
            Ok(changes) if changes.is_empty() => Made::Same,
            Ok(_) => Made::Edit(edit),
            Err(error) => Made::Refused(error.to_string()),
        })
    }

    /// The operation's own entry in the audit log.
    fn entry(&self, operation: Uuid, profiles: &EditScope, by: Attribution) -> AuditEntry {
        let entry = AuditEntry::new(operation, PUT_BACK, Vec::new(), by)
            .detail("store", profiles.store.clone())
            .detail("at_ms", self.at_ms)
            .detail("paths", self.paths.clone());
        let named = [
            ("scope", profiles.scope.clone()),
            ("prefix", profiles.prefix.clone()),
            ("where", profiles.filter.as_ref().map(|filter| filter.as_str().to_owned())),
        ];
        named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .fold(entry, |entry, (name, value)| entry.detail(name, value))
    }
}

/// A place, or the outermost list that it lies in: an edit puts back a list as a whole.
fn outside_of_lists<'p>(path: &'p str, data: [&RawValue; 2]) -> Result<&'p str, String> {
    for (end, _) in path.match_indices('/') {
        for whole in data {
            if at(whole, &path[..end])?.is_some_and(|value| value.get().starts_with('[')) {
                return Ok(&path[..end]);
            }
        }
    }
    Ok(path)
}

/// What is at a place, as it is written. None: nothing is there. Fails where the way to it cannot
/// be read.
fn at<'a>(data: &'a RawValue, path: &str) -> Result<Option<&'a RawValue>, String> {
    let mut here = data;
    for name in path.split('/').skip(1) {
        if !here.get().starts_with('{') {
            return Ok(None);
        }
        let name = name.replace("~1", "/").replace("~0", "~");
        let members: BTreeMap<String, &'a RawValue> = serde_json::from_str(here.get())
            .map_err(|error| format!("what holds `{path}` cannot be read: {error}"))?;
        match members.get(&name) {
            Some(member) => here = *member,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// What became of a profile.
enum Fate {
    Changed,
    Unchanged,
    Unmatched,
    Skipped,
    Refused(String),
    /// Its game server has not answered yet.
    Waits(Edit),
    /// An earlier run settled it.
    Before,
}

/// A run of such an operation.
pub(super) struct PuttingBack {
    pub(super) store: Arc<dyn DataStore>,
    pub(super) env: Env,
    pub(super) operator: Operator,
    pub(super) by: Attribution,
    pub(super) operation: Uuid,
    pub(super) profiles: EditScope,
    pub(super) back: BackTo,
}

impl PuttingBack {
    /// Goes through all profiles. What the library has settled under the operation is left alone.
    pub(super) async fn run(self, tell: impl Fn(BulkProgress) + Send) -> Result<BulkReport, Error> {
        let this = Arc::new(self);
        let entry = this.back.entry(this.operation, &this.profiles, this.by.clone());
        let is_new = this.book(&entry.clone().outcome(AuditOutcome::Pending), 0).await?;
        let (mut report, mut shown) = (BulkReport::default(), BulkProgress::default());
        let mut waiting = Vec::new();
        let mut query = preview::query(&this.profiles, PAGE);
        loop {
            let (page, next) = this.store.profiles(&query).await?;
            let (there, gone): (Vec<_>, Vec<_>) = page.into_iter().partition(KeyState::exists);
            report.skipped += gone.len() as u64;
            let work = there.into_iter().map(|state| this.clone().one(state.key, is_new));
            let mut fates = stream::iter(work).buffer_unordered(AT_ONCE);
            while let Some(fate) = fates.next().await {
                let (key, fate) = fate?;
                waiting.extend(count(&mut report, key, fate));
                shown.passed += 1;
                shown.waiting = waiting.len() as u64;
                shown.settled = shown.passed - shown.waiting;
                tell(shown);
            }
            match next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let until = this.env.now() + LAST_PATIENCE;
        while !waiting.is_empty() && this.env.now() < until {
            let again = std::mem::take(&mut waiting);
            let work = again.into_iter().map(|(key, edit)| this.clone().make(key, edit));
            let mut fates = stream::iter(work).buffer_unordered(AT_ONCE);
            while let Some(fate) = fates.next().await {
                let (key, fate) = fate?;
                waiting.extend(count(&mut report, key, fate));
            }
            shown.waiting = waiting.len() as u64;
            shown.settled = shown.passed - shown.waiting;
            tell(shown);
        }
        report.waiting.extend(waiting.into_iter().map(|(key, _)| key));
        if report.waiting.is_empty() {
            let entry = entry
                .detail("edited", report.done)
                .detail("refused", report.refused.len())
                .detail("unmatched", report.unmatched)
                .detail("skipped", report.skipped);
            this.book(&entry, 1).await?;
        }
        Ok(report)
    }

    /// Books the operation itself. False: an earlier run did so.
    async fn book(&self, entry: &AuditEntry, over: u64) -> Result<bool, Error> {
        let booked = entry.book(&*self.store, &self.env, over).await;
        let cause = booked.as_ref().err().and_then(std::error::Error::source);
        let cause = cause.and_then(|cause| cause.downcast_ref::<StoreError>());
        let was_there = matches!(cause, Some(StoreError::Conflict(_)));
        if was_there { Ok(false) } else { booked.map(|()| true) }
    }

    /// What an earlier run left of a profile, if it came to it.
    async fn before(&self, key: &ProfileKey) -> Result<Option<Fate>, Error> {
        let operation = Some(self.operation);
        let query = AuditQuery { key: Some(key.clone()), operation, ..AuditQuery::default() };
        let mut booked = audit_entries(&*self.store, &query).await?.entries.into_iter();
        let of_it = booked.find(|entry| entry.operation == self.operation);
        Ok(of_it.map(|entry| match entry.outcome {
            AuditOutcome::Pending => sent(&entry),
            AuditOutcome::Refused { why } => Fate::Refused(why),
            _ => Fate::Before,
        }))
    }

    /// Looks at a profile, and puts it back. What was booked before comes first: by now the profile
    /// may be as it is to be, or no longer what the filter means.
    async fn one(
        self: Arc<Self>,
        key: ProfileKey,
        is_new: bool,
    ) -> Result<(ProfileKey, Fate), Error> {
        if !is_new && let Some(fate) = self.before(&key).await? {
            return Ok((key, fate));
        }
        let state = match self.store.read_one(&key, VALUE).await {
            Ok((_, state)) => state,
            Err(error @ StoreError::Damaged { .. }) => {
                return Ok((key, Fate::Refused(error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        // None: it was removed since it was listed.
        let Some(value) = state.value.as_deref() else { return Ok((key, Fate::Skipped)) };
        let record = match Stored::decode(value) {
            Ok(Stored::Profile(record)) => record,
            Ok(Stored::MessagesOnly(_)) => return Ok((key, Fate::Skipped)),
            Ok(_) => {
                return Ok((key, Fate::Refused("what is stored is not a profile".to_owned())));
            }
            Err(error) => return Ok((key, Fate::Refused(error.to_string()))),
        };
        let filter = self.profiles.filter.as_ref();
        if filter.is_some_and(|filter| filter.matches(&record.data).is_ok_and(|is| !is)) {
            return Ok((key, Fate::Unmatched));
        }
        match self.back.edit_of(&*self.store, &state, &record.data).await? {
            Made::Edit(edit) => self.make(key, edit).await,
            Made::Same => Ok((key, Fate::Unchanged)),
            Made::NotMeant => Ok((key, Fate::Unmatched)),
            Made::Refused(why) => Ok((key, Fate::Refused(why))),
        }
    }

    /// Makes a profile's edit, or looks what became of it.
    async fn make(
        self: Arc<Self>,
        key: ProfileKey,
        edit: Edit,
    ) -> Result<(ProfileKey, Fate), Error> {
        let made = self.operator.edit_as(self.operation, &key, &edit, FIRST_PATIENCE).await;
        let fate = match made {
            Ok(_) => Fate::Changed,
            Err(error) => match error.kind() {
                ErrorKind::NotFound => Fate::Skipped,
                ErrorKind::Unknown => Fate::Waits(edit),
                ErrorKind::EditRefused
                | ErrorKind::TooLarge
                | ErrorKind::Foreign
                | ErrorKind::Damaged
                | ErrorKind::Undecodable
                | ErrorKind::NewerData
                | ErrorKind::Refused => Fate::Refused(error.to_string()),
                _ => return Err(error),
            },
        };
        Ok((key, fate))
    }
}

/// An earlier run sent this profile's edit to its game server, which has not answered yet: this run
/// waits for the answer, or makes the edit where the game server has let go meanwhile.
fn sent(entry: &AuditEntry) -> Fate {
    match entry.details.get("edit").cloned().map(serde_json::from_value) {
        Some(Ok(edit)) => Fate::Waits(edit),
        Some(Err(error)) => Fate::Refused(format!("what was sent cannot be read: {error}")),
        None => Fate::Refused("what was sent is not in the audit log".to_owned()),
    }
}

/// Notes what became of a profile. One that waits is given back.
fn count(report: &mut BulkReport, key: ProfileKey, fate: Fate) -> Option<(ProfileKey, Edit)> {
    match fate {
        Fate::Changed => report.done += 1,
        Fate::Unchanged => {
            report.done += 1;
            report.unchanged += 1;
        }
        Fate::Unmatched => report.unmatched += 1,
        Fate::Skipped => report.skipped += 1,
        Fate::Refused(why) => report.refused.push((key, why)),
        Fate::Before => report.before += 1,
        Fate::Waits(edit) => return Some((key, edit)),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(paths: &[&str], then: &str, now: &str) -> Result<Made, String> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        BackTo { at_ms: 0, paths }.between(&raw(then), &raw(now))
    }

    fn steps(paths: &[&str], then: &str, now: &str) -> String {
        match made(paths, then, now) {
            Ok(Made::Edit(edit)) => serde_json::to_value(&edit).unwrap()["ops"].to_string(),
            Ok(Made::Same) => "same".to_owned(),
            Ok(Made::NotMeant) => "not meant".to_owned(),
            Ok(Made::Refused(why)) | Err(why) => why,
        }
    }

    #[test]
    fn a_place_is_put_back_and_what_lies_beside_it_stays() {
        let set = r#"[{"op":"set","path":"/coins","value":9223372036854775807}]"#;
        assert_eq!(steps(&["/coins"], r#"{"coins":9223372036854775807}"#, r#"{"coins":1}"#), set);
        assert_eq!(steps(&["/coins"], r#"{"coins":1}"#, r#"{"coins":1,"level":2}"#), "same");
        assert_eq!(steps(&["/coins"], r#"{"coins":1.0}"#, r#"{"coins":1}"#), "same");
        assert_eq!(steps(&["/vip"], "{}", r#"{"vip":1}"#), r#"[{"op":"remove","path":"/vip"}]"#);
        assert_eq!(steps(&["/vip"], "{}", "{}"), "same");
    }

    #[test]
    fn a_list_is_put_back_as_a_whole_once() {
        let set = r#"[{"op":"set","path":"/items","value":["a"]}]"#;
        let now = r#"{"items":["a","b"]}"#;
        assert_eq!(steps(&["/items/1", "/items/0/x"], r#"{"items":["a"]}"#, now), set);
        assert_eq!(steps(&["/items/1"], r#"{"items":["a","b"]}"#, now), "same");
    }

    #[test]
    fn a_place_whose_surroundings_are_gone_is_refused_with_the_reason() {
        let why = steps(&["/a/b"], r#"{"a":{"b":1}}"#, "{}");
        assert!(why.contains("there is nothing at `/a`"), "{why}");
    }

    #[test]
    fn places_and_time_are_checked() {
        let check = |at_ms, paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            BackTo { at_ms, paths }.check(100).is_ok()
        };
        assert!(check(100, &["/coins", ""]));
        assert!(!check(101, &["/coins"]) && !check(1, &[]) && !check(1, &["coins"]));
        assert!(!check(1, &["/a"; 21]));
    }
}
