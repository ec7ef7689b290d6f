//! What modules learn about a profile, live or read.

use mlua::{IntoLua, Lua, MetaMethod, Table, UserData, UserDataFields, UserDataMethods, Value};
use profilestore::{KeyInfo, SessionInfo, data_store::StoredMessage};

use super::raw::table_of;
use crate::vm::json;

/// `DataStoreKeyInfo`.
pub(crate) struct LuaKeyInfo(pub(crate) KeyInfo);

impl UserData for LuaKeyInfo {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "Instance");
        fields.add_field_method_get("Version", |_, this| Ok(this.0.version.clone()));
        fields.add_field_method_get("CreatedTime", |_, this| Ok(this.0.created_ms as f64));
        fields.add_field_method_get("UpdatedTime", |_, this| Ok(this.0.updated_ms as f64));
        fields.add_field_method_get("ClassName", |_, _| Ok("DataStoreKeyInfo"));
        fields.add_field_method_get("Name", |_, _| Ok("DataStoreKeyInfo"));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("GetUserIds", |_, this, ()| {
            Ok(this.0.user_ids.iter().map(|id| *id as f64).collect::<Vec<_>>())
        });
        methods.add_method("GetMetadata", |lua, this, ()| table_of(lua, &this.0.metadata));
        methods.add_method("IsA", |_, _, class: String| {
            Ok(class == "DataStoreKeyInfo" || class == "Instance")
        });
        methods.add_meta_method(MetaMethod::ToString, |_, _, ()| Ok("DataStoreKeyInfo"));
    }
}

/// The waiting messages above an index:
/// `{ {index, revision, locked, sent_ms, payload or problem}, ... }`, by ascending index. One that
/// cannot be read has a problem instead of a payload.
pub(crate) fn messages(
    lua: &Lua,
    messages: &[StoredMessage],
    above: Option<u64>,
    with_payload: bool,
) -> mlua::Result<Table> {
    let list = lua.create_table()?;
    for message in messages.iter().filter(|message| message.index > above.unwrap_or(0)) {
        let entry = lua.create_table()?;
        entry.set("index", message.index as f64)?;
        entry.set("revision", message.revision as f64)?;
        entry.set("locked", message.locked)?;
        entry.set("sent_ms", message.sent_ms as f64)?;
        if with_payload {
            match payload(lua, message) {
                Ok(payload) => entry.set("payload", payload)?,
                Err(problem) => entry.set("problem", problem)?,
            }
        }
        list.push(entry)?;
    }
    Ok(list)
}

/// A message's payload, a value of its own, or why it cannot be read.
pub(crate) fn payload(lua: &Lua, message: &StoredMessage) -> Result<Value, String> {
    let text = std::str::from_utf8(&message.payload).map_err(|error| error.to_string());
    let read = text.and_then(|text| json::decode_stored(lua, text));
    read.map_err(|error| {
        format!("message {} cannot be read and stays in the inbox: {error}", message.index)
    })
}

/// The place id and the job id of a holder, of the types that it wrote them with.
pub(crate) fn holder(lua: &Lua, holder: &SessionInfo) -> mlua::Result<(Value, Value)> {
    let written = |at: usize| holder.written().and_then(|written| written.get(at));
    let place_id = Value::Number(holder.place_id as f64);
    let job_id = match written(1).and_then(serde_json::Value::as_f64) {
        Some(number) => Value::Number(number),
        None => holder.job_id.as_str().into_lua(lua)?,
    };
    Ok((place_id, job_id))
}

/// Numbers of scripts.
pub(crate) fn numbers(lua: &Lua, ids: &[i64]) -> mlua::Result<Value> {
    ids.iter().map(|id| *id as f64).collect::<Vec<_>>().into_lua(lua)
}
