//! `edit --interactive`: the data in an editor, and an edit of what was changed there.

use std::{env, fs, io::Write, process::Command};

use profilestore::{
    Edit, ProfileKey,
    data_store::{DataStoreExt, Returning},
    operator::{JsonChange, json_changes},
    record::Stored,
    storable::DATA,
};
use serde_json::{Value, json};

use crate::{
    operate::failure,
    output::{Failure, note},
    place::Store,
};

/// Opens the saved data in an editor. The edit of what was changed there, which takes effect only
/// where everything that it changes is still as it was shown. None: nothing was changed.
pub(super) async fn edited(store: &Store, key: &ProfileKey) -> Result<Option<Edit>, Failure> {
    let (_, state) = store.read_one(key, Returning::ALL).await?;
    let none = || Failure::NotFound(format!("there is no such profile: key=`{key}`"));
    let value = state.value.as_deref().ok_or_else(none)?;
    let Ok(Stored::Profile(record)) = Stored::decode(value) else {
        return Err(Failure::Work(format!("what is stored is not a profile: key=`{key}`")));
    };
    // What an editor's reader would round must not be saved as a change.
    let before = DATA.parse(record.data.get()).map_err(|wrong| {
        Failure::Work(format!("the data cannot be edited as a whole, use --set: {wrong}"))
    })?;
    if let Some(holder) = &state.lease.holder {
        note(format_args!(
            "{key} is online at {}; this is what is saved, and what the player changes meanwhile \
                is not overwritten",
            holder.job_id
        ));
    }
    let text = serde_json::to_string_pretty(&before)? + "\n";
    let name = format!("profilestore-edit-{}.json", profilestore::env::Env::system().uuid());
    let path = env::temp_dir().join(name);
    let cannot = |error: std::io::Error| {
        Failure::Work(format!("cannot edit: {error}: file=`{}`", path.display()))
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(cannot)?;
    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).unwrap_or_else(|_| "vi".into());
    // The variable may hold options too.
    let ran =
        Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&path).status();
    let status = ran.map_err(cannot)?;
    let text = fs::read_to_string(&path).map_err(cannot)?;
    if !status.success() {
        let _ = fs::remove_file(&path);
        return Err(Failure::Work(format!("the editor failed, nothing was changed: {status}")));
    }
    let after = DATA.parse(&text).map_err(|wrong| {
        Failure::Work(format!(
            "this is no data that can be stored, nothing was changed: {wrong}: what you wrote is \
                kept: file=`{}`",
            path.display()
        ))
    })?;
    let _ = fs::remove_file(&path);
    let changes = json_changes(&before, &after);
    if changes.is_empty() {
        return Ok(None);
    }
    steps(&changes).map(Some)
}

/// The edit that makes some changes, each one only where there is what was there.
fn steps(changes: &[JsonChange]) -> Result<Edit, Failure> {
    let step = |JsonChange { path, before, after, .. }: &JsonChange| {
        let mut step = json!({ "op": "restore", "path": path });
        for (name, value) in [("is", before), ("was", after)] {
            if let Some(value) = value {
                step[name] = value.clone();
            }
        }
        step
    };
    let steps: Vec<Value> = changes.iter().map(step).collect();
    Edit::from_patch(&serde_json::to_string(&steps)?).map_err(failure)
}
