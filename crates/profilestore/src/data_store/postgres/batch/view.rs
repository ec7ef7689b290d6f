//! What the rules see of a batch's store.

use super::Batch;
use crate::{
    data_store::{
        CommitId, Digest, MessageId, ServerId, ServerRow, StoreError,
        postgres::state::Head,
        rules::{Counters, MessageFacts, Outcome, View},
    },
    key::ProfileKey,
};

impl View for Batch {
    type Error = StoreError;

    fn counters(&mut self, key: &ProfileKey) -> Result<Counters, StoreError> {
        self.head(key).map(Head::counters)
    }

    fn message(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageFacts>, StoreError> {
        Ok(self.messages.get(&(key.clone(), index)).copied())
    }

    fn message_id(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageId>, StoreError> {
        Ok(self.message_ids.get(&(key.clone(), index)).cloned())
    }

    fn used_with(&mut self, key: &ProfileKey, id: &Digest) -> Result<Option<Digest>, StoreError> {
        Ok(self.used.get(&(key.clone(), *id)).copied())
    }

    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, StoreError> {
        let head = self.head(key)?;
        Ok((number > 0 && head.version() == number) || self.kept.contains(&(key.clone(), number)))
    }

    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, StoreError> {
        Ok(self.servers.get(&id).cloned())
    }

    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, StoreError> {
        Ok(self.outcomes.get(&id).copied())
    }
}
