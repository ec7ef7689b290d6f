//! The data of a live profile at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{audit::AuditEntry, data::Data, record::Record};

/// The data at one moment, with the messages whose effect it holds.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) data: Arc<dyn Data>,
    pub(crate) meta: Arc<Record>,
    pub(crate) generation: u64,
    pub(crate) processed: Processed,
    pub(crate) locked: BTreeSet<u64>,
}

/// Messages whose effect is in the data, to be removed by the next save; for an operator's edit
/// what is to be booked with that.
pub(crate) type Processed = BTreeMap<u64, Option<Arc<AuditEntry>>>;
