//! `edit --interactive`: the data in an editor, and an edit of what was changed there.

use std::{env, fmt::Display, fs, io::Write, path::PathBuf, process::Command};

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
pub(super) async fn edited(
    store: &Store,
    key: &ProfileKey,
) -> Result<Option<(Edit, Written)>, Failure> {
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
    let editor = editor();
    // The variable may hold options too.
    let ran =
        Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&path).status();
    let written = Written { path };
    let status = ran.map_err(|error| written.refused(format!("cannot edit: {error}")))?;
    let after = fs::read_to_string(&written.path)
        .map_err(|error| written.refused(format!("what was written cannot be read: {error}")))?;
    if after == text {
        written.forget();
        return match status.success() {
            true => Ok(None),
            false => {
                Err(Failure::Work(format!("the editor failed, nothing was changed: {status}")))
            }
        };
    }
    if !status.success() {
        return Err(written.refused(format!("the editor failed, nothing was changed: {status}")));
    }
    let after = DATA.parse(&after).map_err(|wrong| {
        written.refused(format!("this is no data that can be stored, nothing was changed: {wrong}"))
    })?;
    let changes = json_changes(&before, &after);
    if changes.is_empty() {
        written.forget();
        return Ok(None);
    }
    Ok(Some((steps(&changes)?, written)))
}

/// What an operator wrote: a file that stays until the edit is done.
pub(super) struct Written {
    path: PathBuf,
}

impl Written {
    /// The edit is done, or there is none.
    pub(super) fn forget(self) {
        // It is in a folder for temporary files.
        let _ = fs::remove_file(&self.path);
    }

    /// Says where the file is, so that the work is not lost.
    pub(super) fn refused(&self, why: impl Display) -> Failure {
        Failure::Work(format!("{why}{}", self.where_it_is()))
    }

    /// Nothing when the editor took the file away.
    fn where_it_is(&self) -> String {
        match self.path.exists() {
            true => format!(": what you wrote is kept: file=`{}`", self.path.display()),
            false => String::new(),
        }
    }

    /// The same for an edit that failed.
    pub(super) fn kept(&self, failure: Failure) -> Failure {
        let more = |text: String| text + &self.where_it_is();
        match failure {
            Failure::Closed => Failure::Closed,
            Failure::Work(text) => Failure::Work(more(text)),
            Failure::Usage(text) => Failure::Usage(more(text)),
            Failure::Store(text) => Failure::Store(more(text)),
            Failure::NotFound(text) => Failure::NotFound(more(text)),
        }
    }
}

/// The operator's editor. A variable that is empty names none.
fn editor() -> String {
    let named = |name| env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into())
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
