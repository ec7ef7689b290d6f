//! Bans: who may join no server of the game, for how long, and what was decided before.

use std::{collections::BTreeMap, sync::Arc};

use mlua::{Lua, Table};

use super::world::World;
use crate::vm::{Failed, Vm, error_text};

/// What was decided about users, by their ids; what holds is the last.
#[derive(Default)]
pub(super) struct Bans(BTreeMap<i64, Vec<Decision>>);

/// A ban, or the end of one.
#[derive(Clone)]
struct Decision {
    is_ban: bool,
    at_ms: i64,
    /// Without it the ban lasts for ever.
    until_ms: Option<i64>,
    display_reason: String,
    private_reason: String,
}

impl Bans {
    /// Whether a user may join no server at this moment.
    pub(super) fn holds(&self, user_id: i64, now_ms: i64) -> bool {
        let last = self.0.get(&user_id).and_then(|decisions| decisions.last());
        last.is_some_and(|last| last.is_ban && last.until_ms.is_none_or(|until| now_ms < until))
    }
}

impl World {
    fn decide(&self, user_ids: &[i64], decision: &Decision) {
        let bans = &mut self.inner.lock().bans;
        for user_id in user_ids {
            bans.0.entry(*user_id).or_default().push(decision.clone());
        }
    }

    /// These users leave all servers once the step in which a script called has ended.
    fn turn_away(self: &Arc<Self>, user_ids: Vec<i64>) {
        let own = self.clone();
        self.spawn(async move {
            tokio::task::yield_now().await;
            for user_id in user_ids {
                for server in own.servers_of(user_id) {
                    own.leave(server, user_id);
                }
            }
        });
    }
}

/// Whom a script bans: their ids, for how many seconds (below 0: for ever), and why, for them and
/// for the game.
type Ban = (Vec<i64>, f64, String, String);

/// The host's functions about bans.
pub(super) fn install(vm: &Vm, host: &Table, world: &Arc<World>) -> Result<(), Failed> {
    let own = world.clone();
    let ban = move |_: &Lua, (user_ids, seconds, display_reason, private_reason): Ban| {
        let at_ms = own.env.unix_ms();
        let until_ms = (seconds >= 0.0).then(|| at_ms.saturating_add((seconds * 1000.0) as i64));
        let decision = Decision { is_ban: true, at_ms, until_ms, display_reason, private_reason };
        own.decide(&user_ids, &decision);
        own.turn_away(user_ids);
        Ok(())
    };
    host.set("ban", vm.prompt(ban)?)?;

    let own = world.clone();
    let unban = move |_: &Lua, user_ids: Vec<i64>| {
        let decision = Decision {
            is_ban: false,
            at_ms: own.env.unix_ms(),
            until_ms: None,
            display_reason: String::new(),
            private_reason: String::new(),
        };
        own.decide(&user_ids, &decision);
        Ok(())
    };
    host.set("unban", vm.prompt(unban)?)?;

    let own = world.clone();
    let history = move |lua: &Lua, user_id: i64| {
        let decisions = own.inner.lock().bans.0.get(&user_id).cloned().unwrap_or_default();
        let row = |decision: &Decision| -> mlua::Result<Table> {
            let row = lua.create_table()?;
            row.set("Ban", decision.is_ban)?;
            row.set("at_ms", decision.at_ms)?;
            row.set("until_ms", decision.until_ms)?;
            row.set("DisplayReason", decision.display_reason.as_str())?;
            row.set("PrivateReason", decision.private_reason.as_str())?;
            Ok(row)
        };
        let rows: mlua::Result<Vec<Table>> = decisions.iter().rev().map(row).collect();
        rows.map_err(|error| error_text(&error))
    };
    host.set("ban_history", vm.prompt(history)?)?;
    Ok(())
}
