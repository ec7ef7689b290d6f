//! A profile's data as the engine keeps it for scripts: its JSON.

use std::{fmt, sync::Arc};

use mlua::{Lua, Table, Value};
use profilestore::{
    keeper::Collected,
    storable::{DATA, Limits, MAX_DATA_BYTES, WRITTEN_BY_THE_RULE, check_metadata},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, value::RawValue};

use crate::vm::json::{self, Text};

/// JSON of a table. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Raw {
    json: Arc<str>,
    /// It was made of a script's table, by the rule of what can be stored. What was stored before
    /// may break it.
    by_the_rule: bool,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("bytes", &self.size()).finish_non_exhaustive()
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.by_the_rule {
            serializer.serialize_newtype_struct(WRITTEN_BY_THE_RULE, &Text(&self.json))
        } else {
            Text(&self.json).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with(['{', '[']) {
            return Err(de::Error::custom("Data is not a table"));
        }
        if json::is_buffer(raw.get()) {
            return Err(de::Error::custom("Data stands for a buffer, and is no table to a script"));
        }
        Ok(Self { json: Box::<str>::from(raw).into(), by_the_rule: false })
    }
}

impl Raw {
    /// The JSON of a script's `Data`; `known` itself if it is still that. Fails with the path of
    /// what cannot be stored.
    pub(crate) fn of(lua: &Lua, data: &Value, known: Option<&Self>) -> Result<Self, String> {
        Self::encoded(lua, data, known).map(|(raw, _)| raw)
    }

    /// The same, and whether a copy of the table is what reading it again gives.
    fn encoded(lua: &Lua, data: &Value, known: Option<&Self>) -> Result<(Self, bool), String> {
        let (json, is_plain) = data_json(lua, data, DATA)?;
        let is_plain = is_plain && json != "[]";
        // Other programs take an empty table for an object, which it nearly always is.
        let json = if json == "[]" { "{}" } else { json.as_str() };
        if let Some(known) = known.filter(|known| *known.json == *json) {
            return Ok((known.clone(), is_plain));
        }
        Ok((Self { json: json.into(), by_the_rule: true }, is_plain))
    }

    /// How many bytes of JSON it is.
    pub(crate) fn size(&self) -> usize {
        self.json.len()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.json, &other.json) || self.json == other.json
    }

    /// A table of its own. An object that stands for a buffer is none, and could not be saved.
    pub(crate) fn table(&self, lua: &Lua) -> mlua::Result<Value> {
        let data = json::decode_stored(lua, &self.json).map_err(mlua::Error::RuntimeError)?;
        if data.is_table() {
            Ok(data)
        } else {
            let kind = json::a_kind_of(&data);
            Err(mlua::Error::RuntimeError(format!("Data is {kind} to a script, and no table")))
        }
    }
}

/// How many bytes of JSON a script's `Data` is, also when that is too much. Fails when it cannot be
/// stored for another reason.
pub(crate) fn size(lua: &Lua, data: &Value) -> Result<f64, String> {
    // Tables that share parts could go on for ever.
    const COUNTED: Limits = Limits { bytes: 4 * MAX_DATA_BYTES, ..DATA };
    data_json(lua, data, COUNTED).map(|(json, _)| json.len() as f64)
}

fn data_json(lua: &Lua, data: &Value, limits: Limits) -> Result<(String, bool), String> {
    if !data.is_table() {
        return Err(format!(
            "Data: {} cannot be stored, it must be a table",
            json::a_kind_of(data)
        ));
    }
    json::encode_to_copy(lua, "Data", data, limits).map_err(|error| error.to_string())
}

/// A JSON object of a script's table.
pub(crate) fn object(
    lua: &Lua,
    name: &str,
    value: &Value,
) -> Result<Map<String, serde_json::Value>, String> {
    let Some(table) = value.as_table() else {
        let kind = json::a_kind_of(value);
        return Err(format!("{name}: {kind} cannot be stored, it must be a table"));
    };
    // Most profiles have none, at every save.
    if json::is_empty(lua, table) {
        return Ok(Map::new());
    }
    let json = json::encode(lua, name, value, DATA).map_err(|error| error.to_string())?;
    if json == "[]" {
        return Ok(Map::new());
    }
    serde_json::from_str(&json)
        .map_err(|_| format!("{name}: a list cannot be stored, its keys must be texts"))
}

/// A table of a JSON object.
pub(crate) fn table_of(lua: &Lua, object: &Map<String, serde_json::Value>) -> mlua::Result<Value> {
    // Tags and metadata are read as objects in any case, so nothing is noted about an empty table.
    if object.is_empty() {
        return lua.create_table().map(Value::Table);
    }
    let json = serde_json::to_string(object).map_err(mlua::Error::external)?;
    json::decode(lua, &json).map_err(mlua::Error::RuntimeError)
}

/// What a script hands over: `Data`, `UserIds`, `RobloxMetaData`, `MetaTags`, and the indexes of
/// messages that are processed or to be locked. Everything but the data may be nil.
pub(crate) type Handed = (Value, Option<Table>, Value, Value, Option<Vec<u64>>, Option<Vec<u64>>);

/// The same for the engine, which has `known` as the data, and whether the data is plain, as
/// [`json::copy_of`] takes it. Fails with the path of what cannot be stored.
pub(crate) fn kept(
    lua: &Lua,
    handed: Handed,
    known: Option<&Raw>,
) -> Result<(Collected<Raw>, bool), String> {
    let (data, user_ids, metadata, tags, processed, locked) = handed;
    let optional = |name, value: Value| {
        if value.is_nil() { Ok(None) } else { object(lua, name, &value).map(Some) }
    };
    let mut kept = Collected::default();
    let (raw, is_plain) = Raw::encoded(lua, &data, known)?;
    kept.data = Some(raw);
    let user_ids = user_ids.map(|ids| json::user_ids(lua, "UserIds", &ids)).transpose();
    kept.user_ids = user_ids.map_err(|error| error.to_string())?;
    kept.roblox_metadata = optional("RobloxMetaData", metadata)?;
    if let Some(metadata) = &kept.roblox_metadata {
        check_metadata(metadata).map_err(|wrong| {
            format!("RobloxMetaData{}: {}", wrong.path.replace('/', "."), wrong.problem)
        })?;
    }
    kept.meta_tags = optional("MetaTags", tags)?;
    kept.processed = processed.unwrap_or_default();
    kept.locked = locked.unwrap_or_default();
    Ok((kept, is_plain))
}
