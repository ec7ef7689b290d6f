//! A game's tree as tables for `tree.luau`.

use std::sync::Arc;

use mlua::{Lua, Table, Value};
use serde_json::Map;

use crate::{
    classes,
    project::{Node, Tree},
    vm::{Failed, Vm, json},
};

pub(super) fn install(vm: &Vm, host: &Table, tree: Option<&Arc<Tree>>) -> Result<(), Failed> {
    let lua = vm.lua();
    let aliases = lua.create_table()?;
    if let Some(tree) = tree {
        host.set("tree", table_of(lua, &tree.root)?)?;
        for (script, meanings) in &tree.aliases {
            aliases.set(
                script.as_str(),
                lua.create_table_from(meanings.iter().map(|(k, v)| (k.as_str(), v.as_str())))?,
            )?;
        }
    }
    host.set("aliases", aliases)?;
    let is_engines_own = |_: &Lua, (class, property): (String, String)| {
        Ok(classes::is_engines_own(&class, &property))
    };
    host.set("is_engines_own", vm.prompt(is_engines_own)?)?;
    Ok(())
}

fn table_of(lua: &Lua, node: &Node) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("name", node.name.as_str())?;
    table.set("class", node.class.as_str())?;
    table.set("path", node.path.as_deref())?;
    table.set("source", node.source.as_deref())?;
    table.set("described", node.described.as_deref())?;
    table.set("referent", node.referent.as_deref())?;
    table.set("properties", values(lua, &node.properties)?)?;
    table.set("attributes", values(lua, &node.attributes)?)?;
    let children = lua.create_table()?;
    for child in &node.children {
        children.push(table_of(lua, child)?)?;
    }
    table.set("children", children)?;
    Ok(table)
}

fn values(lua: &Lua, values: &Map<String, serde_json::Value>) -> mlua::Result<Value> {
    let text = serde_json::to_string(values).map_err(mlua::Error::external)?;
    json::decode(lua, &text).map_err(mlua::Error::external)
}
