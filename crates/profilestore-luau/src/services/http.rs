//! Requests of scripts to hosts that are named.

use std::{collections::BTreeMap, sync::Arc};

use mlua::{BString, Lua, Table};

use crate::{
    http::{Client, Request},
    vm::{Failed, Vm},
};

/// A method, an address, headers and a body.
type Asked = (String, String, BTreeMap<String, String>, BString);

/// Without a client there is nothing to call.
pub(super) fn install(vm: &Vm, host: &Table, client: Option<&Arc<Client>>) -> Result<(), Failed> {
    let Some(client) = client.cloned() else { return Ok(()) };
    let send = move |_: &Lua, (method, url, headers, body): Asked| {
        let client = client.clone();
        let request = Request { method, url, headers, body: body.into() };
        Ok(async move {
            // A request takes real time. Virtual time stands still meanwhile.
            let sent = tokio::task::spawn_blocking(move || client.send(&request)).await;
            let response = sent.map_err(|error| format!("HttpError: Aborted ({error})"))??;
            let body = BString::from(response.body);
            Ok((response.status, response.message, response.headers, body))
        })
    };
    host.set("http", vm.waiting(send)?)?;
    Ok(())
}
