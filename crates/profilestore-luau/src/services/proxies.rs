//! Objects whose `typeof` is a Roblox type. They are userdata without content: what they are is
//! kept by the Luau code that made them, and so are their metamethods.

use mlua::{Function, Lua, Table, UserData, UserDataFields as _, UserDataRegistry, Value};

use crate::vm::Answer;

const KINDS: [&str; 32] = [
    "Instance",
    "EnumItem",
    "Enum",
    "Enums",
    "DateTime",
    "RBXScriptSignal",
    "RBXScriptConnection",
    "Vector3",
    "Vector2",
    "Vector3int16",
    "Vector2int16",
    "Color3",
    "UDim",
    "UDim2",
    "CFrame",
    "NumberRange",
    "NumberSequence",
    "NumberSequenceKeypoint",
    "ColorSequence",
    "ColorSequenceKeypoint",
    "Rect",
    "Ray",
    "Region3",
    "TweenInfo",
    "Random",
    "Font",
    "BrickColor",
    "RaycastParams",
    "OverlapParams",
    "PhysicalProperties",
    "PathWaypoint",
    "Content",
];
const METAMETHODS: [&str; 10] = [
    "__index",
    "__newindex",
    "__tostring",
    "__eq",
    "__add",
    "__sub",
    "__mul",
    "__div",
    "__idiv",
    "__unm",
];

/// An object of one of [`KINDS`].
struct Proxy<const KIND: usize>;

impl<const KIND: usize> UserData for Proxy<KIND> {
    fn register(registry: &mut UserDataRegistry<Self>) {
        registry.add_meta_field("__type", KINDS[KIND]);
        for name in METAMETHODS {
            registry.add_meta_field_with(name, move |lua| {
                lua.named_registry_value::<Value>(&place(KIND, name))
            });
        }
    }
}

fn place(kind: usize, metamethod: &str) -> String {
    format!("{} {metamethod}", KINDS[kind])
}

/// What makes objects of a kind with these metamethods.
pub(super) fn kind(lua: &Lua, (name, metamethods): (String, Table)) -> Answer<Function> {
    let kind =
        KINDS.iter().position(|kind| *kind == name).ok_or("there is no such kind of object")?;
    let made = || {
        for metamethod in METAMETHODS {
            lua.set_named_registry_value(
                &place(kind, metamethod),
                metamethods.get::<Value>(metamethod)?,
            )?;
        }
        let makers = [
            maker::<0>,
            maker::<1>,
            maker::<2>,
            maker::<3>,
            maker::<4>,
            maker::<5>,
            maker::<6>,
            maker::<7>,
            maker::<8>,
            maker::<9>,
            maker::<10>,
            maker::<11>,
            maker::<12>,
            maker::<13>,
            maker::<14>,
            maker::<15>,
            maker::<16>,
            maker::<17>,
            maker::<18>,
            maker::<19>,
            maker::<20>,
            maker::<21>,
            maker::<22>,
            maker::<23>,
            maker::<24>,
            maker::<25>,
            maker::<26>,
            maker::<27>,
            maker::<28>,
            maker::<29>,
            maker::<30>,
            maker::<31>,
        ];
        makers[kind](lua)
    };
    made().map_err(|error: mlua::Error| error.to_string())
}

fn maker<const KIND: usize>(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, ()| lua.create_userdata(Proxy::<KIND>))
}
