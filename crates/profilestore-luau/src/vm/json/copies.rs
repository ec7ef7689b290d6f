//! Copies of tables that have just been written as JSON, in place of reading that JSON again. They
//! are made in Luau, which takes a fraction of the time: one call for all of it instead of one or
//! more for each value.

use std::sync::Arc;

use mlua::{Function, Lua, Table};

use crate::vm::{OWN_CODE, limits::Budget};

/// What copies a machine's tables.
struct Copier {
    copy: Function,
    budget: Arc<Budget>,
}

/// Prepares a machine whose scripts `budget` watches, before any of them runs.
pub(crate) fn install_copier(lua: &Lua, budget: &Arc<Budget>) -> mlua::Result<()> {
    let source = lua.load(include_str!("copies.luau")).set_name(format!("={OWN_CODE}copies"));
    lua.set_app_data(Copier { copy: source.eval()?, budget: budget.clone() });
    Ok(())
}

/// A copy of a table that [`super::encode_to_copy`] has found to be plain. None when there is no
/// memory for it, or when Luau's 64-bit integers are in it, which are read as numbers.
pub(crate) fn copy_of(lua: &Lua, table: &Table) -> Option<Table> {
    let copier = lua.app_data_ref::<Copier>()?;
    // It is no larger than what can be stored, and asking after each value whether to go on would
    // cost more than the copy.
    lua.remove_interrupt();
    let copied = copier.copy.call(table);
    copier.budget.watch(lua);
    copied.ok()
}

#[cfg(test)]
mod tests {
    use mlua::Value;
    use profilestore::storable::DATA;

    use super::*;
    use crate::vm::{
        Limits,
        json::{decode, encode, encode_to_copy},
    };

    fn machine() -> Lua {
        let lua = Lua::new();
        let budget = Arc::new(Budget::new(Limits::default()));
        budget.watch(&lua);
        install_copier(&lua, &budget).expect("a machine");
        lua
    }

    const DATA_OF_A_GAME: &str = "
        local shared = { 1 }
        return table.freeze({
            Coins = 7, Wear = 0.1, Zero = -0.0, Large = 2 ^ 60, Name = 'a', Off = false, None = {},
            List = { 'x', { y = 1 }, {} }, Twice = { shared, shared },
            Bytes = buffer.fromstring('b'), Named = { ['1'] = 'one', [''] = 0 },
            Class = setmetatable({ N = 1, Inner = { 2 } }, { __index = { No = 1 },
                __metatable = false, __iter = function() error('never') end }),
        })";

    #[test]
    fn a_copy_is_what_reading_the_json_gives() {
        let lua = machine();
        let value: Value = lua.load(DATA_OF_A_GAME).eval().expect("a table");
        let (json, is_plain) = encode_to_copy(&lua, "Data", &value, DATA).expect("storable");
        assert!(is_plain);
        let copy = copy_of(&lua, value.as_table().expect("a table")).expect("a copy");
        let read = decode(&lua, &json).expect("JSON");
        let check = lua.load(
            "local copy, read, original = ...
            local function same(a, b)
                assert(type(a) == type(b))
                if type(a) == 'buffer' then
                    assert(buffer.tostring(a) == buffer.tostring(b))
                elseif type(a) ~= 'table' then
                    assert(a == b and 1 / (tonumber(a) or 1) == 1 / (tonumber(b) or 1))
                else
                    assert(#a == #b and getmetatable(a) == nil and not table.isfrozen(a))
                    for key, value in next, a do same(value, b[key]) end
                    for key in next, b do assert(a[key] ~= nil) end
                end
            end
            same(copy, read)
            assert(copy.Twice[1] ~= copy.Twice[2] and copy.Class.No == nil)
            copy.List[2].y, copy.Class.Inner[1] = 5, 6
            buffer.writeu8(copy.Bytes, 0, 1)
            assert(original.List[2].y == 1 and original.Class.Inner[1] == 2)
            assert(buffer.tostring(original.Bytes) == 'b')",
        );
        check.call::<()>((&copy, read, &value)).expect("they are equal, and apart");
        let empty: Table = lua.load("return {}").eval().expect("a table");
        assert_eq!(copy_of(&lua, &empty).expect("a copy").raw_len(), 0);
    }

    #[test]
    fn what_a_table_does_not_show_is_no_plain_data() {
        let lua = machine();
        for (text, plain) in [
            (r#"{"a":[1,"x",[]]}"#, true),
            (r#"{"a":{}}"#, false),
            (r#"{"a":[null,1]}"#, false),
            (r#"{"a":{"b":76561198000000001}}"#, false),
        ] {
            let value = decode(&lua, text).expect("JSON");
            let (json, is_plain) = encode_to_copy(&lua, "Data", &value, DATA).expect("storable");
            assert_eq!((json.as_str(), is_plain), (text, plain));
            assert_eq!(encode(&lua, "Data", &value, DATA).expect("storable"), text);
        }
        let value = decode(&lua, r#"{"a":{}}"#).expect("JSON");
        lua.load("local data = ... data.a.b = 1").call::<()>(&value).expect("an edit");
        let filled = encode_to_copy(&lua, "Data", &value, DATA).expect("storable");
        assert_eq!(filled, (r#"{"a":{"b":1}}"#.to_owned(), true));
    }

    /// The copy had integers, with which no number can be added up.
    #[test]
    fn of_integers_no_copy_is_made() {
        let lua = machine();
        let data = "return { List = { integer.create(5) }, Class = setmetatable({}, {}) }";
        let value: Value = lua.load(data).eval().expect("a table");
        let (json, is_plain) = encode_to_copy(&lua, "Data", &value, DATA).expect("storable");
        assert_eq!((json.as_str(), is_plain), (r#"{"Class":[],"List":[5]}"#, true));
        assert!(copy_of(&lua, value.as_table().expect("a table")).is_none());
    }

    #[test]
    fn scripts_are_watched_again_after_a_copy() {
        let lua = Lua::new();
        let limits = Limits { step: std::time::Duration::ZERO, ..Limits::default() };
        let budget = Arc::new(Budget::new(limits));
        budget.watch(&lua);
        install_copier(&lua, &budget).expect("a machine");
        let list: Table = lua.load("return table.create(1000, 1)").eval().expect("a table");
        assert!(budget.enter());
        assert_eq!(copy_of(&lua, &list).map(|copy| copy.raw_len()), Some(1000));
        let error = lua.load("while true do end").exec().expect_err("it is stopped");
        assert!(error.to_string().contains("and was stopped"), "{error}");
    }
}
