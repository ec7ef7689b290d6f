//! The store that all servers of the demonstration share, and where it is.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use profilestore::{env::Env, messenger::Messenger};

use super::{display::say, fleet::Call};
use crate::place::{Place, Store};

/// Opens the store, made if it is missing, with the messenger that was named or else belongs to it.
/// A named one is connected when it can be: servers come up while it is down.
pub(crate) async fn open(call: &Call) -> anyhow::Result<(Store, Arc<dyn Messenger>)> {
    let store = call.place.open_or_make().await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let messenger: Arc<dyn Messenger> = match &call.messenger {
        Some(address) => {
            let nats = address.nats().map_err(|failure| anyhow::anyhow!("{failure}"))?;
            nats.connect_in_background().await?
        }
        None => store.messenger()?,
    };
    Ok((store, messenger))
}

/// Where a run keeps its file.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) place: Place,
    /// A directory that was made for this run.
    made: Option<PathBuf>,
}

impl Home {
    /// The given store, or a new file in a directory of its own among the temporary ones.
    pub(crate) fn new(given: Option<Place>, env: &Env) -> anyhow::Result<Self> {
        if let Some(place) = given {
            return Ok(Self { place, made: None });
        }
        let directory =
            std::env::temp_dir().join(format!("profilestore-demo-{}", env.uuid().simple()));
        std::fs::create_dir(&directory).with_context(|| {
            format!("a temporary directory cannot be made: path=`{}`", directory.display())
        })?;
        Ok(Self { place: Place::Sqlite(directory.join("demo.db")), made: Some(directory) })
    }

    /// Deletes what was made for the run; a store that was given stays.
    pub(crate) fn clear(&self) {
        if let Some(directory) = &self.made
            && let Err(error) = std::fs::remove_dir_all(directory)
        {
            say(&format!(
                "the temporary directory could not be deleted: {error}: path=`{}`",
                directory.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_its_own_leaves_nothing_behind_and_a_given_store_stays() {
        let own = Home::new(None, &Env::system()).unwrap();
        let path = own.place.file().unwrap();
        std::fs::write(path, "x").unwrap();
        own.clear();
        assert!(!path.exists() && !path.parent().unwrap().exists());
        let given = Home::new(Some(Place::Sqlite("some.db".into())), &Env::system()).unwrap();
        assert!(given.made.is_none());
    }
}
