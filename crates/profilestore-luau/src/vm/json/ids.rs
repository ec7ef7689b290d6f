//! User ids: a script sees doubles, which tell whole numbers apart up to 2^53 - 1.

use mlua::{Lua, Table, Value};
use profilestore::storable;

use super::{Problem, Unstorable, exact, notes};

/// The first whole number that a double does not tell from the next one.
const LIMIT: f64 = 9_007_199_254_740_992.0;

/// A list for scripts. A larger id comes back as it is while the script leaves it alone.
pub(crate) fn user_ids_table(lua: &Lua, ids: &[i64]) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(ids.len(), 0)?;
    for (index, id) in ids.iter().enumerate() {
        let double = *id as f64;
        if double >= LIMIT {
            notes::note(lua, &list, &Value::Number((index + 1) as f64), &id.to_string())?;
        }
        list.raw_push(double)?;
    }
    Ok(list)
}

/// The user ids in a list of a script.
pub(crate) fn user_ids(lua: &Lua, name: &str, list: &Table) -> Result<Vec<i64>, Unstorable> {
    let noted = notes::all(lua).and_then(|all| all.of(list));
    let at = |index: usize, problem| Unstorable { path: format!("{name}[{}]", index + 1), problem };
    let mut ids = Vec::new();
    for (index, id) in list.sequence_values::<Value>().enumerate() {
        let double = match id {
            Ok(Value::Integer(id)) => Some(id as f64),
            Ok(Value::Number(id)) => Some(id),
            _ => None,
        };
        let id = double.and_then(|double| {
            if double.fract() == 0.0 && double.abs() < LIMIT {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "it is whole and within what a double holds"
                )]
                return Some(double as i64);
            }
            let text = exact::text_of(noted.as_ref()?, (index + 1) as f64, double)?;
            text.to_str().ok()?.parse().ok()
        });
        let id = id.ok_or_else(|| {
            at(index, Problem::Script("a user id is a whole number below 2^53".to_owned()))
        })?;
        storable::check_users(&[id]).map_err(|wrong| at(index, wrong.problem.into()))?;
        ids.push(id);
    }
    Ok(ids)
}
