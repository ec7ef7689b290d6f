//! The messages of a key within a commit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;

use super::{Trouble, state::Tx};
use crate::data_store::{Digest, StoredMessage, content::content_digest};

const INSERT_MESSAGE: &str = "INSERT INTO message (head, number, digest, content, created_ms, name, locked, revision, sent_ms, \
     payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl Tx<'_> {
    pub(super) fn remove_message(
        &mut self,
        at: usize,
        number: i64,
        receipt: bool,
    ) -> Result<(), Trouble> {
        if receipt {
            let sql = "INSERT INTO receipt (head, digest, content, made_ms) \
                 SELECT head, digest, content, ?3 FROM message WHERE head = ?1 AND number = ?2 \
                 ON CONFLICT DO UPDATE SET content = excluded.content, \
                 made_ms = excluded.made_ms";
            self.prepare(sql)?.execute(params![self.heads[at].id, number, self.now_ms])?;
        }
        let sql = "DELETE FROM message WHERE head = ?1 AND number = ?2";
        self.prepare(sql)?.execute(params![self.heads[at].id, number])?;
        self.heads[at].waiting = self.heads[at].waiting.saturating_sub(1);
        Ok(())
    }

    pub(super) fn replace_inbox(
        &mut self,
        at: usize,
        messages: &[StoredMessage],
    ) -> Result<(), Trouble> {
        let id = self.ensure_head(at)?;
        let before = {
            let mut rows = self.prepare("SELECT number, digest FROM message WHERE head = ?1")?;
            let rows =
                rows.query_map([id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        let after: BTreeMap<i64, Digest> = messages
            .iter()
            .map(|message| (message.index.cast_signed(), message.id.digest()))
            .collect();
        let (kept, gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|(number, digest)| {
            after.get(number).is_some_and(|after| after.0 == **digest)
        });
        let kept: BTreeSet<i64> = kept.into_iter().map(|(number, _)| number).collect();
        // Those that go, first: a new message may have the number of an old one.
        for (number, _) in gone {
            self.remove_message(at, number, true)?;
        }
        for message in messages {
            let number = message.index.cast_signed();
            if kept.contains(&number) {
                let sql = "UPDATE message SET payload = ?3, revision = ?4, locked = ?5 WHERE head \
                    = ?1 AND number = ?2";
                let revision = message.revision.cast_signed();
                self.prepare(sql)?.execute(params![
                    id,
                    number,
                    message.payload.as_ref(),
                    revision,
                    message.locked
                ])?;
            } else {
                self.insert_message(at, message)?;
            }
        }
        Ok(())
    }

    pub(super) fn insert_message(
        &mut self,
        at: usize,
        message: &StoredMessage,
    ) -> Result<(), Trouble> {
        let id = self.ensure_head(at)?;
        self.prepare(INSERT_MESSAGE)?.execute(params![
            id,
            message.index.cast_signed(),
            message.id.digest().0.as_slice(),
            content_digest(&message.payload).0.as_slice(),
            message.id.created_ms(),
            message.id.name(),
            message.locked,
            message.revision.cast_signed(),
            message.sent_ms,
            message.payload.as_ref(),
        ])?;
        self.heads[at].waiting += 1;
        Ok(())
    }
}
