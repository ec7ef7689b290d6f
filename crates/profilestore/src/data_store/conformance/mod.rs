//! The suite that every backend runs: each sentence of [`DataStore`]'s contract as a case over
//! `&dyn DataStore`.
//!
//! A backend's test module names a factory for [`Subject`]s, an `async fn() -> Subject`, and lets
//! [`store_conformance!`](crate::store_conformance) make one test a case. Each case gets a store of
//! its own, empty, whose clock it may advance.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Cause, Change, Commit, CommitId, CommitReply, Conflict, ConflictKind, DataStore, DataStoreExt,
    Holder, Incarnation, KeyState, LeaseState, MessageId, NewMessage, NewValue, Returning,
    ServerId, StoreError,
};
use crate::key::ProfileKey;

mod commits;
mod history;
mod hosts;
mod links;
mod listing;
mod messages;
mod saves;
mod servers;

pub use commits::*;
pub use history::*;
pub use hosts::*;
pub use links::*;
pub use listing::*;
pub use messages::*;
pub use saves::*;
pub use servers::*;

pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;

/// An empty store under test, and the handle to its clock.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn DataStore>,
    advance: Box<dyn Fn(i64) + Send + Sync>,
    guards: Vec<Box<dyn Any + Send + Sync>>,
    ids: AtomicU64,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.store).finish()
    }
}

impl Subject {
    /// A store, and how to advance its clock by some milliseconds.
    pub fn new(store: Arc<dyn DataStore>, advance: impl Fn(i64) + Send + Sync + 'static) -> Self {
        Self { store, advance: Box::new(advance), guards: Vec::new(), ids: AtomicU64::new(1) }
    }

    /// Keeps something alive as long as the subject: a temporary directory, say.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// Advances the store's clock.
    pub fn advance(&self, ms: i64) {
        (self.advance)(ms);
    }

    async fn now(&self) -> i64 {
        self.store.identity().await.expect("the store tells its time").now_ms
    }

    async fn incarnation(&self) -> Incarnation {
        self.store.identity().await.expect("the store tells its incarnation").incarnation
    }

    /// Advances the clock to ten minutes past the next full hour.
    async fn next_hour(&self) {
        self.advance(HOUR_MS - self.now().await.rem_euclid(HOUR_MS) + HOUR_MS / 6);
    }

    /// A version 7 identifier of the store's time.
    async fn uuid(&self) -> Uuid {
        let ms = u128::from(self.now().await.cast_unsigned());
        let count = u128::from(self.ids.fetch_add(1, Ordering::Relaxed));
        Uuid::from_u128((ms << 80) | (0x7 << 76) | (0b10 << 62) | count)
    }

    async fn server(&self) -> ServerId {
        ServerId(self.uuid().await)
    }

    /// A commit that asks for everything.
    async fn make(&self, changes: Vec<Change>) -> Commit {
        let (id, incarnation) = (CommitId(self.uuid().await), self.incarnation().await);
        Commit {
            id,
            incarnation,
            from: None,
            changes,
            returning: Returning::ALL,
            fingerprint: None,
        }
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<CommitReply, StoreError> {
        self.store.commit_one(self.make(changes).await).await
    }

    #[track_caller]
    fn ok(&self, changes: Vec<Change>) -> impl Future<Output = CommitReply> {
        let caller = std::panic::Location::caller();
        async move {
            self.commit(changes)
                .await
                .unwrap_or_else(|err| panic!("the commit at {caller} fails: {err}"))
        }
    }

    #[track_caller]
    fn conflict(&self, changes: Vec<Change>) -> impl Future<Output = Conflict> {
        let caller = std::panic::Location::caller();
        async move {
            match self.commit(changes).await {
                Err(StoreError::Conflict(conflict)) => *conflict,
                other => panic!("expected a conflict at {caller}, found {other:?}"),
            }
        }
    }

    #[track_caller]
    fn conflict_kind(&self, changes: Vec<Change>) -> impl Future<Output = ConflictKind> {
        let conflict = self.conflict(changes);
        async move { conflict.await.kind }
    }

    async fn state(&self, key: &ProfileKey) -> KeyState {
        let (_, state) =
            self.store.read_one(key, Returning::ALL).await.expect("the key can be read");
        state
    }

    /// Writes the next version of a key, whatever it is at.
    async fn put(&self, key: &ProfileKey, value: &str) -> KeyState {
        let state = self.state(key).await;
        self.ok(vec![write(&state, value)]).await.states.remove(0)
    }

    /// Registers a server with a lease time of 20 s.
    async fn registered(&self) -> ServerId {
        let id = self.server().await;
        self.ok(vec![register(id)]).await;
        id
    }

    /// Makes a server the holder of a key, raising its epoch.
    async fn held_by(&self, key: &ProfileKey, server: ServerId) -> KeyState {
        let state = self.state(key).await;
        self.ok(vec![lease(&state, held(server), true)]).await.states.remove(0)
    }
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("a valid name")
}

/// What a test changes in a write before it commits it.
struct Write {
    value: NewValue,
    user_ids: Vec<i64>,
    cause: Cause,
    keep_previous: bool,
    seal: bool,
    imported: Option<super::Imported>,
}

impl Default for Write {
    fn default() -> Self {
        let value = NewValue::Bytes(Bytes::new());
        Self {
            value,
            user_ids: Vec::new(),
            cause: Cause::Save,
            keep_previous: false,
            seal: false,
            imported: None,
        }
    }
}

impl Write {
    fn of(value: &str) -> Self {
        Self { value: NewValue::Bytes(Bytes::copy_from_slice(value.as_bytes())), ..Self::default() }
    }

    fn over(self, state: &KeyState) -> Change {
        let Self { value, user_ids, cause, keep_previous, seal, imported } = self;
        let (key, epoch, version, author) =
            (state.key.clone(), state.epoch, state.version, "tester".to_owned());
        Change::Write {
            key,
            epoch,
            version,
            value,
            user_ids,
            cause,
            author,
            keep_previous,
            seal,
            imported,
        }
    }
}

fn write(state: &KeyState, value: &str) -> Change {
    Write::of(value).over(state)
}

fn remove(state: &KeyState) -> Change {
    Write { value: NewValue::Tombstone, cause: Cause::Remove, ..Write::default() }.over(state)
}

fn lease(state: &KeyState, lease: LeaseState, raise_epoch: bool) -> Change {
    Change::Lease {
        key: state.key.clone(),
        revision: state.lease_revision,
        lease,
        raise_epoch,
        seal: false,
    }
}

fn held(server: ServerId) -> LeaseState {
    let holder = Holder {
        server: Some(server),
        place_id: 7,
        job_id: "job".into(),
        session: "session".into(),
        since_ms: 5,
        last_update_ms: Some(6),
        document: Some(serde_json::json!(["a", { "b": 1.5 }])),
    };
    LeaseState { load_count: 3, holder: Some(holder), ..LeaseState::default() }
}

fn register(id: ServerId) -> Change {
    Change::RegisterServer {
        id,
        place_id: 7,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    }
}

fn append(key: &ProfileKey, id: &MessageId, payload: &str) -> Change {
    let message =
        NewMessage { id: id.clone(), payload: Bytes::copy_from_slice(payload.as_bytes()) };
    Change::AppendMessage { key: key.clone(), message, cap: 1000 }
}

fn message_id(created_ms: i64, name: &str) -> MessageId {
    MessageId::new(created_ms, name).expect("a valid name")
}

fn value(state: &KeyState) -> Option<&str> {
    state.value.as_deref().map(|value| std::str::from_utf8(value).expect("the tests write text"))
}

/// Makes one test a case of the suite. Takes an `async fn() -> Subject` that gives a new, empty
/// store each time.
#[macro_export]
macro_rules! store_conformance {
    ($factory:expr) => {
        $crate::store_conformance! { @cases $factory;
            a_holders_last_save_is_applied_once
            a_holders_last_save_is_known_behind_other_writes
            the_last_save_of_a_holder_that_is_shut_out_is_known
            other_commits_are_known_one_by_one
            an_unused_key_is_absent
            a_first_write_makes_version_1
            a_write_needs_epoch_and_version
            a_lease_needs_its_revision
            a_check_writes_nothing
            a_check_for_a_request_is_kept
            a_commit_is_all_or_nothing
            preconditions_are_judged_before_the_commit
            a_reply_says_what_was_asked_for
            a_commit_is_applied_once
            a_commit_id_is_used_for_one_request
            a_failed_id_may_come_again
            an_aborted_commit_arrives_too_late
            an_applied_commit_cannot_be_aborted
            counters_survive_removal
            malformed_commits_are_invalid
            a_commit_for_other_contents_is_refused
            a_batch_keeps_its_order
            big_values_come_back
            one_of_many_writers_wins
            many_keys_at_once
            the_first_write_of_an_hour_keeps_the_previous
            special_versions_are_kept
            imports_bring_their_times_and_labels
            versions_are_listed_in_pages
            only_kept_versions_are_pinned
            a_sweep_deletes_old_versions
            a_sweep_goes_through_every_key
            an_erasure_leaves_counters_and_receipts
            an_erasure_alone_leaves_the_current_value
            links_say_what_a_save_took_and_sent
            links_say_with_whom_a_trade_was
            links_are_of_play_only
            links_are_bounded
            links_are_kept_as_long_as_the_history
            keys_are_listed_in_order
            keys_are_listed_in_pages
            narrowed_listings_are_paged_without_a_gap
            keys_are_listed_by_prefix
            removed_keys_are_listed
            keys_are_listed_by_user
            keys_are_listed_by_update
            keys_are_listed_within_a_prefix
            keys_are_listed_when_held
            messages_are_numbered
            a_message_is_appended_once
            a_messages_content_is_compared_as_a_json_value
            receipts_outlive_message_and_data
            message_ids_expire
            receipts_are_swept_when_their_ids_expired
            an_inbox_has_a_cap
            messages_are_changed_under_their_revision
            effect_and_receipt_are_one_commit
            an_inbox_is_imported_once
            an_inbox_is_replaced_at_its_revision
            a_message_moved_within_an_inbox_can_be_taken
            a_message_of_a_replaced_inbox_is_not_changed
            message_ids_are_shown_as_time_and_name
            a_server_registers_once
            a_renewal_needs_the_revision
            a_dead_server_stays_dead
            a_take_over_fails_when_its_holder_lives
            a_holder_gets_notices
            an_offer_is_noticed
            the_next_to_ask_is_noticed_when_an_offer_is_withdrawn
            a_request_that_is_replaced_is_noticed
            notices_stay_until_acknowledged
            a_repeated_renewal_brings_the_notices
            a_sweep_deletes_dead_servers
            outcomes_are_kept_for_7_days
            outcomes_of_ids_without_a_time_are_swept
            a_server_registers_with_its_host
            an_owner_is_bounded
            a_renewal_needs_the_host
            a_server_is_rehosted_under_a_greater_generation
            a_dead_server_is_not_rehosted
            a_release_by_an_old_host_is_refused
            releases_and_a_new_host_at_once
        }
    };
    (@cases $factory:expr; $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::data_store::conformance::$case($factory().await).await;
        }
    )*};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let this = include_str!("mod.rs");
        let files = [
            include_str!("commits.rs"),
            include_str!("history.rs"),
            include_str!("hosts.rs"),
            include_str!("links.rs"),
            include_str!("listing.rs"),
            include_str!("messages.rs"),
            include_str!("saves.rs"),
            include_str!("servers.rs"),
        ];
        let cases = files
            .iter()
            .flat_map(|file| file.lines())
            .filter_map(|line| line.strip_prefix("pub async fn "));
        let names: Vec<_> = cases.filter_map(|line| line.split('(').next()).collect();
        assert!(names.len() > 40);
        for name in names {
            let listed = this.lines().filter(|line| line.trim() == name).count();
            assert_eq!(listed, 1, "the case {name} is not in the list of store_conformance!");
        }
    }
}
