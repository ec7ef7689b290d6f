//! Profiles that were read without a session, and queries for versions.

use std::sync::Arc;

use mlua::{Lua, Table, UserData, UserDataRef};
use parking_lot::Mutex;
use profilestore::{ErrorKind, ReadProfile, history::Versions};

use super::{
    Told, info,
    raw::{Handed, Raw, kept, table_of},
};
use crate::vm::{Failed, Vm, error_text, json, whole};

/// A read profile as modules have it.
pub(crate) struct LuaView(Arc<Mutex<ReadProfile<Raw>>>);

impl UserData for LuaView {}

impl LuaView {
    pub(super) fn new(profile: ReadProfile<Raw>) -> Self {
        Self(Arc::new(Mutex::new(profile)))
    }
}

/// A query for versions.
pub(crate) struct LuaQuery(Arc<tokio::sync::Mutex<Versions<Raw>>>);

impl UserData for LuaQuery {}

impl LuaQuery {
    pub(super) fn new(versions: Versions<Raw>) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(versions)))
    }
}

type Own = UserDataRef<LuaView>;

pub(crate) fn install(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (view) -> { load_count, first_session_time, place_id or nil, job_id or nil, user_ids,
    // roblox_metadata, meta_tags, last_message }
    table.set(
        "view_info",
        vm.prompt(|lua, view: Own| {
            view_info(lua, &view.0.lock()).map_err(|error| error_text(&error))
        })?,
    )?;
    // (view) -> a fresh table
    table.set(
        "view_data",
        vm.prompt(|lua, view: Own| {
            view.0.lock().data.table(lua).map_err(|error| error_text(&error))
        })?,
    )?;
    // (view) -> DataStoreKeyInfo, or nil when the key holds only messages
    table.set(
        "view_key_info",
        vm.prompt(|_, view: Own| Ok(view.0.lock().key_info().cloned().map(info::LuaKeyInfo)))?,
    )?;
    // (view) -> { {index, revision, locked, sent_ms, payload}, ... }
    table.set(
        "view_messages",
        vm.prompt(|lua, view: Own| {
            info::messages(lua, view.0.lock().waiting_messages(), None, true)
                .map_err(|error| error_text(&error))
        })?,
    )?;

    // (view, Data, UserIds or nil, RobloxMetaData or nil, MetaTags or nil, indexes of processed
    // messages or nil) -> true; waits. Throws when something of it cannot be stored.
    table.set(
        "set",
        vm.waiting(
            |lua, (view, data, user_ids, metadata, tags, processed): (Own, _, _, _, _, _)| {
                let handed: Handed = (data, user_ids, metadata, tags, processed, None);
                let (kept, _) = kept(lua, handed, None)?;
                let profile = view.0.clone();
                put(&mut profile.lock(), kept)?;
                // The view can be changed again while this is under way.
                let setting = profile.lock().clone();
                Ok(async move { Ok(Told(setting.set().await.map(|()| true))) })
            },
        )?,
    )?;

    // (query) -> the next view, or nil; waits. A version that is no profile is passed over.
    table.set(
        "next",
        vm.waiting(|_, query: UserDataRef<LuaQuery>| {
            let versions = query.0.clone();
            Ok(async move {
                let mut versions = versions.lock().await;
                let next = loop {
                    match versions.next_profile().await {
                        Err(error)
                            if matches!(
                                error.kind(),
                                ErrorKind::Foreign | ErrorKind::Undecodable
                            ) => {}
                        next => break next,
                    }
                };
                Ok(Told(next.map(|next| next.map(LuaView::new))))
            })
        })?,
    )?;
    Ok(())
}

fn put(
    profile: &mut ReadProfile<Raw>,
    kept: profilestore::keeper::Collected<Raw>,
) -> Result<(), String> {
    let text = |error: profilestore::Error| whole(&error);
    if let Some(data) = kept.data {
        profile.data = data;
    }
    if let Some(user_ids) = kept.user_ids {
        for user_id in profile.user_ids().to_vec() {
            profile.remove_user_id(user_id);
        }
        for user_id in user_ids {
            profile.add_user_id(user_id).map_err(text)?;
        }
    }
    if let Some(metadata) = kept.roblox_metadata {
        profile.set_roblox_metadata(metadata).map_err(text)?;
    }
    if let Some(tags) = kept.meta_tags {
        profile.set_meta_tags(tags);
    }
    for index in kept.processed {
        profile.process_message(index);
    }
    Ok(())
}

fn view_info(lua: &Lua, profile: &ReadProfile<Raw>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("load_count", profile.session_load_count() as f64)?;
    table.set("first_session_time", profile.first_session_time())?;
    if let Some(at) = profile.session() {
        let (place_id, job_id) = info::holder(lua, at)?;
        table.set("place_id", place_id)?;
        table.set("job_id", job_id)?;
    }
    table.set("user_ids", json::user_ids_table(lua, profile.user_ids())?)?;
    table.set("roblox_metadata", table_of(lua, profile.roblox_metadata())?)?;
    table.set("meta_tags", table_of(lua, profile.meta_tags())?)?;
    Ok(table)
}
