//! The rows of servers and their notices: what a commit changes of them, and reading them.

use rusqlite::{OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{Trouble, head::unsigned, state::Tx};
use crate::{
    data_store::{Change, CommitId, HostId, Notice, ServerId, ServerRow},
    key::ProfileKey,
};

const SERVERS: &str = "SELECT id, place_id, job_id, revision, lease_ms, started_ms, renewed_ms, dead_ms, host, generation, \
     owner FROM server ORDER BY id";

const SERVER: &str = "SELECT id, place_id, job_id, revision, lease_ms, started_ms, renewed_ms, dead_ms, host, generation, \
     owner FROM server WHERE id = ?1";

impl Tx<'_> {
    pub(super) fn find_server(&self, id: ServerId) -> Result<Option<ServerRow>, Trouble> {
        let mut statement = self.prepare(SERVER)?;
        Ok(statement.query_row([id.0.as_bytes().as_slice()], server_of_row).optional()?)
    }

    pub(super) fn all_servers(&self) -> Result<Vec<ServerRow>, Trouble> {
        let mut statement = self.prepare(SERVERS)?;
        let rows = statement.query_map([], server_of_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn notify(
        &mut self,
        server: ServerId,
        at: usize,
        commit: CommitId,
    ) -> Result<(), Trouble> {
        let sql = "INSERT OR REPLACE INTO notice (server, head, commit_id) VALUES (?1, ?2, ?3)";
        let id = self.ensure_head(at)?;
        self.prepare(sql)?.execute(params![
            server.0.as_bytes().as_slice(),
            id,
            commit.0.as_bytes().as_slice()
        ])?;
        Ok(())
    }

    pub(super) fn apply_to_server(&mut self, change: &Change) -> Result<(), Trouble> {
        let now_ms = self.now_ms;
        match change {
            Change::RegisterServer { id, place_id, job_id, lease_ms, host, owner } => {
                let sql = "INSERT INTO server (id, place_id, job_id, revision, lease_ms, started_ms, renewed_ms, host, owner) \
                     VALUES (?1, ?2, ?3, 1, ?4, ?5, ?5, ?6, ?7)";
                self.prepare(sql)?.execute(params![
                    id.0.as_bytes().as_slice(),
                    place_id,
                    job_id,
                    lease_ms,
                    now_ms,
                    host.as_ref().map(|host| host.0.as_bytes().as_slice()),
                    owner,
                ])?;
                self.servers.remove(id);
            }
            Change::RehostServer { id, generation, host } => {
                let sql = "UPDATE server SET revision = revision + 1, renewed_ms = ?2, host = ?3, \
                    generation = ?4 WHERE id = ?1";
                self.prepare(sql)?.execute(params![
                    id.0.as_bytes().as_slice(),
                    now_ms,
                    host.0.as_bytes().as_slice(),
                    generation.cast_signed(),
                ])?;
                self.servers.remove(id);
            }
            Change::RenewServer { id, acknowledged, .. } => {
                let id_bytes = id.0.as_bytes().as_slice();
                let sql = "UPDATE server SET revision = revision + 1, renewed_ms = ?2 WHERE id = \
                    ?1";
                self.prepare(sql)?.execute(params![id_bytes, now_ms])?;
                let sql = "DELETE FROM notice WHERE server = ?1 AND commit_id = ?2 \
                     AND head = (SELECT id FROM head WHERE store = ?3 AND scope = ?4 AND key = ?5)";
                for Notice { key, commit } in acknowledged {
                    let commit = commit.0.as_bytes().as_slice();
                    self.prepare(sql)?.execute(params![
                        id_bytes,
                        commit,
                        key.store(),
                        key.scope(),
                        key.key()
                    ])?;
                }
                self.servers.remove(id);
            }
            Change::MarkDead { id, .. } => {
                let sql = "UPDATE server SET dead_ms = ?2 WHERE id = ?1 AND dead_ms IS NULL";
                self.prepare(sql)?.execute(params![id.0.as_bytes().as_slice(), now_ms])?;
                self.servers.remove(id);
            }
            Change::Abort { commit } => {
                let sql = "INSERT INTO settled (id, at_ms, aborted) VALUES (?1, ?2, 1) ON \
                    CONFLICT DO NOTHING";
                self.prepare(sql)?.execute(params![commit.0.as_bytes().as_slice(), now_ms])?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A server's notices by key.
    pub(super) fn notices(&self, id: ServerId) -> Result<Vec<Notice>, Trouble> {
        let sql = "SELECT h.store, h.scope, h.key, n.commit_id FROM notice n JOIN head h ON h.id = n.head WHERE n.server = ?1 \
             ORDER BY h.store, h.scope, h.key";
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query([id.0.as_bytes().as_slice()])?;
        let mut notices = Vec::new();
        while let Some(row) = rows.next()? {
            notices.push(Notice {
                key: super::key_of_row(row, 0)?,
                commit: CommitId(Uuid::from_bytes(row.get(3)?)),
            });
        }
        Ok(notices)
    }

    /// The keys of a server's notices beyond the id of one, and the newest id. Goes by the id, not
    /// by the server: few are new.
    pub(super) fn notices_since(
        &self,
        server: ServerId,
        id: i64,
    ) -> Result<(Vec<ProfileKey>, i64), Trouble> {
        let sql = "SELECT h.store, h.scope, h.key, n.id FROM notice n JOIN head h ON h.id = n.head \
             WHERE n.id > ?2 AND +n.server = ?1 ORDER BY n.id";
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params![server.0.as_bytes().as_slice(), id])?;
        let (mut keys, mut newest) = (Vec::new(), id);
        while let Some(row) = rows.next()? {
            keys.push(super::key_of_row(row, 0)?);
            newest = row.get(3)?;
        }
        Ok((keys, newest))
    }
}

fn server_of_row(row: &Row<'_>) -> rusqlite::Result<ServerRow> {
    Ok(ServerRow {
        id: ServerId(Uuid::from_bytes(row.get(0)?)),
        place_id: row.get(1)?,
        job_id: row.get(2)?,
        revision: unsigned(row, 3)?,
        lease_ms: row.get(4)?,
        started_ms: row.get(5)?,
        renewed_ms: row.get(6)?,
        dead: row.get::<_, Option<i64>>(7)?.is_some(),
        host: row.get::<_, Option<[u8; 16]>>(8)?.map(|host| HostId(Uuid::from_bytes(host))),
        generation: unsigned(row, 9)?,
        owner: row.get(10)?,
    })
}
