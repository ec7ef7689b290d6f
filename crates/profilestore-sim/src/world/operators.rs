//! What operators do from outside the game, through any server: edits of one profile and of all,
//! edits that stand, undoing, rollback, erasure, ending sessions; and programs that write something
//! into the store which is no profile.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use profilestore::{
    Attribution, Edit, Error, ErrorKind, Operator, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, LeaseState, NewValue, Order,
        Returning, VersionQuery, VersionRef,
    },
    env::Env,
    key::DEFAULT_SCOPE,
    operator::{BulkEdit, EditScope},
    record::{Foreign, Stored},
};
use serde_json::{Map, json};
use tokio::time::Instant;

use super::{
    Running, SharedClock, World,
    players::{is_unknown, key_of},
};
use crate::{
    dice::Dice,
    invariants::broken,
    oracle::{EditTold, StartTold},
};

/// Mean seconds between two things that an operator does.
const PACE: f64 = 40.0;

/// How long an operator waits for an edit.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an operator waits for a session's end.
const PATIENCE_WITH_SESSIONS: Duration = Duration::from_secs(60);

const STORE: &str = "PlayerData";

pub(super) fn profile_key(name: &str) -> ProfileKey {
    ProfileKey::new(STORE, DEFAULT_SCOPE, name).expect("a player's key is a name")
}

/// An operator's desk.
struct Desk {
    world: Arc<World>,
    dice: Dice,
    env: Env,
    /// Edits of one profile, to be asked for again.
    single: Vec<(u64, uuid::Uuid, Edit)>,
    /// Edits of all profiles that have not been undone.
    bulk: Vec<(u64, uuid::Uuid)>,
}

impl World {
    pub(super) async fn operate(self: Arc<Self>, number: usize) {
        let dice = Dice::new(self.seed, 30_000 + number as u64);
        let env = Env::new(Arc::new(SharedClock(self.clock.clone())), Arc::new(dice.rng()));
        let mut desk = Desk { world: self, dice, env, single: Vec::new(), bulk: Vec::new() };
        loop {
            tokio::time::sleep(desk.dice.around(PACE)).await;
            desk.turn().await;
        }
    }

    fn restores(&self) -> u64 {
        self.clerk.0.lock().counts.0.get("backups restored").copied().unwrap_or_default()
    }
}

impl Desk {
    async fn turn(&mut self) {
        let running = self.world.running(self.dice.below(self.world.size.servers));
        let Some(running) = running.filter(|running| !running.server.is_closing()) else { return };
        let name = key_of(self.dice.below(self.world.size.players));
        match self.dice.below(100) {
            0..38 => self.edit_one(&running, &name, true).await,
            38..43 => self.edit_one(&running, &name, false).await,
            43..53 => self.edit_again(&running).await,
            53..65 => self.roll_back(&running, &name).await,
            65..70 => self.erase(&running).await,
            70..80 => self.end_session(&running, &name).await,
            80..88 => self.edit_all(&running, false).await,
            88..91 => self.edit_all(&running, true).await,
            91..95 => self.undo(&running).await,
            _ => self.write_foreign(&name).await,
        }
    }

    fn by(&self) -> Attribution {
        Attribution::new("desk")
    }

    fn operator(&self, running: &Running) -> Operator {
        running.server.operator(self.by())
    }

    /// A new edit in the books.
    fn order(&self, told: EditTold) -> u64 {
        let edits = &mut self.world.clerk.0.lock().told.edits;
        edits.push(told);
        edits.len() as u64 - 1
    }

    async fn edit_one(&mut self, running: &Running, name: &str, fits: bool) {
        let coins = 1 + self.dice.below(100) as i64;
        let number = self.order(EditTold { to: Some(name.to_owned()), ..EditTold::default() });
        let edit = granting(number, coins, coins);
        let edit = if fits { Ok(edit) } else { edit.test("/coins", json!("many")) }
            .expect("the paths are right");
        let operation = self.env.uuid();
        self.single.push((number, operation, edit));
        self.ask(running, self.single.len() - 1).await;
    }

    async fn edit_again(&mut self, running: &Running) {
        if !self.single.is_empty() {
            self.ask(running, self.dice.below(self.single.len())).await;
        }
    }

    async fn ask(&mut self, running: &Running, which: usize) {
        let (number, operation, edit) = self.single[which].clone();
        let index = number as usize;
        let name = {
            let books = &mut *self.world.clerk.0.lock();
            let told = &mut books.told.edits[index];
            told.under_way += 1;
            told.to.clone().expect("it is for one profile")
        };
        let asked = self.operator(running).edit_as(operation, &profile_key(&name), &edit, PATIENCE);
        let before = self.world.restores();
        let Some(answer) = running.life.wait(asked).await else { return };
        let replaced = self.world.restores() != before;
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(&name), || {
            format!("edit {number} of {name} from {}: {}", running.life.job, said(&answer))
        });
        let told = &mut books.told.edits[index];
        told.under_way -= 1;
        match &answer {
            Ok(_) => {
                told.done = true;
                books.counts.add("edits by operators");
                let outcome = books.invariants.edits.acknowledged(&name, number);
                books.check(outcome);
            }
            Err(error) if error.kind() == ErrorKind::EditRefused => told.refused |= !replaced,
            Err(error) => told.unknown |= is_unknown(error),
        }
    }

    async fn roll_back(&self, running: &Running, name: &str) {
        let key = profile_key(name);
        let query = VersionQuery {
            key: key.clone(),
            order: Order::Descending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: 20,
        };
        let versions = self.world.store.versions(&query).await.expect("memory can be read");
        let versions: Vec<u64> = versions
            .iter()
            .filter(|version| !version.removed)
            .map(|version| version.number)
            .collect();
        if versions.is_empty() {
            return;
        }
        let version = *self.dice.pick(&versions);
        self.world.note(Some(name), || {
            format!("{name} is to be rolled back to version {version} on {}", running.life.job)
        });
        // The version may be something that is no profile.
        *self.world.clerk.0.lock().told.removals.entry(name.to_owned()).or_default() += 1;
        let answer = running
            .life
            .wait(self.operator(running).restore(&key, VersionRef::Number(version)))
            .await;
        self.world.note(Some(name), || {
            format!("rolled back: {}", answer.as_ref().map_or_else(|| "nothing".into(), said))
        });
        if let Some(Ok(_)) = answer {
            self.world.count("rollbacks");
        }
    }

    async fn erase(&self, running: &Running) {
        let player = self.dice.below(self.world.size.players);
        let name = key_of(player);
        *self.world.clerk.0.lock().told.removals.entry(name.clone()).or_default() += 1;
        self.world.note(Some(&name), || format!("{name} is to be erased on {}", running.life.job));
        let before = self.world.restores();
        let answer =
            running.life.wait(self.operator(running).erase_user(user_of(player), false)).await;
        self.world.note(Some(&name), || {
            format!("erased: {}", answer.as_ref().map_or_else(|| "nothing".into(), said))
        });
        let Some(Ok(report)) = answer else { return };
        let replaced = self.world.restores() != before;
        let books = &mut *self.world.clerk.0.lock();
        for erased in &report.erased {
            books.counts.add("erasures");
            if !replaced && !books.invariants.erased.has(erased.key.key()) {
                let outcome = broken(
                    "erasure",
                    erased.key.key(),
                    "the profile was reported as erased, and is not",
                );
                books.check(outcome);
            }
        }
    }

    async fn end_session(&self, running: &Running, name: &str) {
        let steal = self.dice.chance(0.2);
        let since = Instant::now();
        let number = {
            let books = &mut *self.world.clerk.0.lock();
            books.note(Some(name), || {
                format!(
                    "an operator ends the session on {name} from {} steal={steal}",
                    running.life.job
                )
            });
            let life = running.life.clone();
            for session in books.told.sessions.values_mut().filter(|session| session.key == name) {
                session.disturbed |= Arc::ptr_eq(&session.life, &life);
            }
            let number = books.told.call();
            books.told.starts.push(StartTold {
                number,
                key: name.to_owned(),
                life,
                since,
                until: None,
                steal,
                overwrite: false,
                may_be_cancelled: false,
                limit: Some(PATIENCE_WITH_SESSIONS),
            });
            number
        };
        let operator = self.operator(running);
        let answer = running
            .life
            .wait(operator.end_session(&profile_key(name), steal, PATIENCE_WITH_SESSIONS))
            .await;
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(name), || {
            format!("ended: {}", answer.as_ref().map_or_else(|| "nothing".into(), said))
        });
        books.told.start_ended(number);
        if let Some(Ok(Some(_))) = answer {
            books.counts.add("sessions ended by operators");
        }
    }

    async fn edit_all(&mut self, running: &Running, new_too: bool) {
        let coins = 1 + self.dice.below(100) as i64;
        let undoable = self.dice.chance(0.5);
        let number = self.order(EditTold { stands: new_too, ..EditTold::default() });
        // What is undone is taken back whatever became of the rest, so it is not added up.
        let edit = granting(number, coins, if undoable { 0 } else { coins });
        let operation = self.env.uuid();
        let bulk = BulkEdit::new(operation, EditScope::all(STORE), edit);
        let mut bulk = if new_too { bulk.new_too() } else { bulk };
        bulk.patience = PATIENCE;
        if undoable {
            self.bulk.push((number, operation));
        }
        let before = self.world.restores();
        let began = self.world.clerk.0.lock().invariants.edits.now();
        // Broken off by a crash or an error, it goes on somewhere else.
        let mut place = running.clone();
        for _ in 0..4 {
            let answer = place.life.wait(self.operator(&place).edit_all(&bulk, |_| {})).await;
            self.world.note(None, || {
                let said = answer.as_ref().map_or_else(|| "nothing".into(), said);
                format!(
                    "edit {number} of all profiles from {} new_too={new_too}: {said}",
                    place.life.job
                )
            });
            if let Some(Ok(report)) = answer {
                if self.world.restores() != before {
                    return;
                }
                let books = &mut *self.world.clerk.0.lock();
                books.counts.add("edits of all profiles");
                let but_for = report.refused.iter().map(|(key, _)| key).chain(&report.waiting);
                let but_for: BTreeSet<String> = but_for.map(|key| key.key().to_owned()).collect();
                books.told.edits[number as usize].standing |= new_too;
                let outcome =
                    books.invariants.edits.acknowledged_everywhere(number, began, &but_for);
                books.check(outcome);
                return;
            }
            tokio::time::sleep(self.dice.seconds(0.5, 10.0)).await;
            let next = self.world.running(self.dice.below(self.world.size.servers));
            match next.filter(|running| !running.server.is_closing()) {
                Some(running) => place = running,
                None => return,
            }
        }
    }

    async fn undo(&mut self, running: &Running) {
        if self.bulk.is_empty() {
            return;
        }
        let (number, of) = self.bulk.swap_remove(self.dice.below(self.bulk.len()));
        self.world.clerk.0.lock().told.edits[number as usize].undoing = true;
        let mut bulk = BulkEdit::undo(self.env.uuid(), of);
        bulk.patience = PATIENCE;
        let before = self.world.restores();
        let answer = running.life.wait(self.operator(running).edit_all(&bulk, |_| {})).await;
        let replaced = self.world.restores() != before;
        let books = &mut *self.world.clerk.0.lock();
        books.note(None, || {
            format!(
                "edit {number} undone: {}",
                answer.as_ref().map_or_else(|| "nothing".into(), said)
            )
        });
        if let Some(Ok(report)) = answer {
            books.counts.add("edits undone");
            books.told.edits[number as usize].undone =
                !replaced && report.refused.is_empty() && report.waiting.is_empty();
        }
    }

    /// Another program writes something of its own.
    async fn write_foreign(&self, name: &str) {
        let (key, store) = (profile_key(name), &self.world.store);
        self.world
            .note(Some(name), || format!("something that is no profile is written to {name}"));
        self.world.count("foreign values");
        *self.world.clerk.0.lock().told.removals.entry(name.to_owned()).or_default() += 1;
        let (_, state) = store.read_one(&key, Returning::HEAD).await.expect("memory can be read");
        let value =
            serde_json::value::to_raw_value(&json!(["not", "a", "profile"])).expect("this is JSON");
        let value = Stored::Foreign(Foreign { user_ids: Vec::new(), metadata: Map::new(), value });
        let write = Change::Write {
            key: key.clone(),
            epoch: state.epoch,
            version: state.version,
            value: NewValue::Bytes(value.encode().expect("it is small")),
            user_ids: Vec::new(),
            cause: Cause::Set,
            author: "another program".into(),
            keep_previous: true,
            seal: false,
            imported: None,
        };
        let lease = Change::Lease {
            key,
            revision: state.lease_revision,
            lease: LeaseState { holder: None, offer: None, ..state.lease },
            raise_epoch: true,
            seal: false,
        };
        let incarnation = store.identity().await.expect("memory can be read").incarnation;
        let commit = Commit {
            id: CommitId(self.env.uuid()),
            incarnation,
            from: None,
            changes: vec![write, lease],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        store.commit_one(commit).await.expect("nobody came between");
    }
}

/// An edit that grants coins and leaves its number in the data.
fn granting(number: u64, coins: i64, added_up: i64) -> Edit {
    let edit = Edit::new()
        .increase("/coins", coins.into())
        .and_then(|edit| edit.increase("/minted", coins.into()))
        .and_then(|edit| edit.set(&format!("/edited/{number}"), json!(added_up)));
    let edit = if added_up == 0 {
        edit
    } else {
        edit.and_then(|edit| edit.increase("/granted", added_up.into()))
    };
    edit.expect("the paths are right")
}

/// The user whose profile a player's is.
pub(super) fn user_of(player: usize) -> i64 {
    player as i64 + 1
}

fn said<T: std::fmt::Debug>(answer: &Result<T, Error>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{:?} {error}", error.kind()),
    }
}
