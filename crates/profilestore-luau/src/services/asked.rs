//! Calls of data stores that a script has made. Their answers come at a frame, as Roblox gives
//! them, and a report on tests names those that were made to fail.

use std::sync::{Arc, Weak};

use profilestore::roblox::{Code, DataStoreError, RobloxDataStore};

use crate::{
    specs::Collector,
    vm::{Scheduler, Vm, next_frame},
};

/// What a machine's calls of data stores are answered with.
#[derive(Clone)]
pub(super) struct Frames {
    scheduler: Weak<Scheduler>,
    specs: Option<Arc<Collector>>,
}

impl Frames {
    pub(super) fn new(vm: &Vm, specs: Option<&Arc<Collector>>) -> Self {
        Self { scheduler: Arc::downgrade(vm.scheduler()), specs: specs.cloned() }
    }

    pub(super) fn scheduler(&self) -> Weak<Scheduler> {
        self.scheduler.clone()
    }

    /// A call by this method, with the store and the key if it is about one.
    pub(super) fn asked(
        &self,
        method: &str,
        store: Option<&RobloxDataStore>,
        key: Option<&str>,
    ) -> Asked {
        let what = || {
            let key = key.map(|key| format!("{key:?}")).unwrap_or_default();
            let store = store.map(|store| format!(" of the data store {:?}", store.name()));
            format!("{method}({key}){}", store.unwrap_or_default())
        };
        let told = self.specs.clone().map(|specs| (specs, what()));
        Asked { scheduler: self.scheduler(), told }
    }
}

/// A call that is under way.
pub(super) struct Asked {
    scheduler: Weak<Scheduler>,
    /// Who is told that it was made to fail, and how it is named.
    told: Option<(Arc<Collector>, String)>,
}

impl Asked {
    /// Gives the answer at the first frame after it is there.
    pub(super) async fn at_a_frame<T>(
        self,
        answer: Result<T, DataStoreError>,
    ) -> Result<T, DataStoreError> {
        let is_lost = answer.as_ref().is_err_and(|error| error.code == Code::BadResponse);
        if is_lost && let Some((specs, what)) = self.told {
            specs.call_failed(what);
        }
        next_frame(&self.scheduler).await;
        answer
    }
}
