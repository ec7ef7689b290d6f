//! Objects whose `typeof` is a Roblox type. They are userdata without content: what they are is kept by the Luau code that made them,
//! and so are their metamethods.

use mlua::{Function, Lua, Table, UserData, UserDataFields as _, UserDataRegistry, Value};

use crate::vm::Answer;

const KINDS: [&str; 7] = ["Instance", "EnumItem", "Enum", "Enums", "DateTime", "RBXScriptSignal", "RBXScriptConnection"];
const METAMETHODS: [&str; 4] = ["__index", "__newindex", "__tostring", "__eq"];

/// An object of one of [`KINDS`].
struct Proxy<const KIND: usize>;

impl<const KIND: usize> UserData for Proxy<KIND> {
    fn register(registry: &mut UserDataRegistry<Self>) {
        registry.add_meta_field("__type", KINDS[KIND]);
        for name in METAMETHODS {
            registry.add_meta_field_with(name, move |lua| lua.named_registry_value::<Value>(&place(KIND, name)));
        }
    }
}

fn place(kind: usize, metamethod: &str) -> String {
    format!("{} {metamethod}", KINDS[kind])
}

/// What makes objects of a kind with these metamethods.
pub(super) fn kind(lua: &Lua, (name, metamethods): (String, Table)) -> Answer<Function> {
    let kind = KINDS.iter().position(|kind| *kind == name).ok_or("there is no such kind of object")?;
    let made = || {
        for metamethod in METAMETHODS {
            lua.set_named_registry_value(&place(kind, metamethod), metamethods.get::<Value>(metamethod)?)?;
        }
        match kind {
            0 => maker::<0>(lua),
            1 => maker::<1>(lua),
            2 => maker::<2>(lua),
            3 => maker::<3>(lua),
            4 => maker::<4>(lua),
            5 => maker::<5>(lua),
            _ => maker::<6>(lua),
        }
    };
    made().map_err(|error: mlua::Error| error.to_string())
}

fn maker<const KIND: usize>(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, ()| lua.create_userdata(Proxy::<KIND>))
}
