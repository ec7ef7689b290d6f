//! The data of a live profile at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::handlers::Gift;
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

/// Messages whose effect is in the data, to be removed by the next save.
pub(crate) type Processed = BTreeMap<u64, Mark>;

/// What else goes into the commit that removes a processed message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark {
    /// For an operator's edit: what is to be booked.
    pub(crate) entry: Option<Arc<AuditEntry>>,
    /// What its handler sends to other profiles.
    pub(crate) gifts: Vec<Gift>,
}
