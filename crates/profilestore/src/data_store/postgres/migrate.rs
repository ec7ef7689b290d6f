//! `profilestore migrate`: making the tables, and bringing a store of an earlier format to this
//! one: step by step, all in one transaction.
//!
//! The store is of the format before or of this one, and never between the two. A store in which a
//! server is alive is left alone: a program of the earlier format would go on writing to it. One
//! that was stopped in the middle and goes on later finds no table `outcome`, to which every commit
//! of format 1 writes.

use tokio_postgres::{Row, error::SqlState, types::ToSql};

use super::{
    PostgresClock, PostgresOptions,
    connect::{Conn, Dialer},
    schema::{self, APPLICATION, DIGEST_INDEX, Found, LOCK, REMOVED, TABLES, UNTIMED_INDEX},
    state::{get, unsigned},
    trouble::Trouble,
};
use crate::{
    audit::{AUDIT_SCOPE, tags_of_value},
    data_store::{
        StoreError,
        checksum::{Covered, checksum, is_whole_before_step_6},
    },
    key::RESERVED_STORE,
};

/// A statement may take as long as the tables are large: no game server waits for it.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0";

/// How many values are read at once.
const PIECE: i64 = 64;

/// Makes the schema and its tables where they are missing, brings those of an earlier format to
/// this one, and grants a role what a game server needs. True when something was made or changed.
pub(super) async fn migrate(
    options: &PostgresOptions,
    role: Option<&str>,
) -> Result<bool, StoreError> {
    let mut conn = Dialer::new(options.clone()).connect().await?;
    conn.wait_as_long_as_it_takes();
    conn.batch(BEGIN).await.map_err(Trouble::not_applied)?;
    let work = async {
        let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
        match conn.batch(&lock).await {
            // An engine without such locks. The second of two fails on what is there already.
            Err(Trouble::Postgres(err)) if err.code() == Some(&SqlState::UNDEFINED_FUNCTION) => {
                conn.batch("ROLLBACK").await?;
                conn.batch(BEGIN).await?;
            }
            locked => locked?,
        }
        let found = schema::identify(&conn, options).await?;
        let made = matches!(found, Found::Nothing);
        let name = &options.schema;
        if made {
            schema::check_encoding(&conn, options).await?;
            let incarnation = options.env.uuid();
            conn.batch(&format!(
                "CREATE SCHEMA IF NOT EXISTS {name}; {TABLES} {DIGEST_INDEX}; {UNTIMED_INDEX}"
            ))
            .await?;
            conn.batch(&format!(
                "INSERT INTO meta (name, value) VALUES ('application', '{APPLICATION}'), \
                 ('incarnation', '{incarnation}')"
            ))
            .await?;
            schema::mark(&conn).await?;
        }
        let added = !made && schema::add_missing(&conn, name).await?;
        if let Found::Earlier(step) = found {
            to_newest(&conn, options, step).await?;
        }
        let added = added || matches!(found, Found::Earlier(_));
        if let Some(role) = role {
            schema::grant(&conn, options, role).await?;
        }
        conn.batch("COMMIT").await?;
        Ok::<_, Trouble>(made || added)
    };
    work.await.map_err(|trouble| match trouble {
        Trouble::Postgres(err) if err.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => StoreError::Invalid {
            reason: format!(
                "the role may not make the tables; migrate as a role that may create a schema in \
                    this database: {}: store=`{options}`",
                err.as_db_error().map_or("", |db| db.message())
            ),
        },
        trouble => trouble.not_applied(),
    })
}

/// Brings the store to the newest step. `step`: the last one that it has reached; 0 for format 1.
async fn to_newest(conn: &Conn, options: &PostgresOptions, step: i64) -> Result<(), Trouble> {
    // Commits lock heads first as well, so none of them and this wait for each other.
    conn.batch("LOCK TABLE head, version, server IN ACCESS EXCLUSIVE MODE").await?;
    refuse_while_in_use(conn, options).await?;
    if step < 1 {
        add_checksums(conn).await?;
    }
    if step < 2 {
        add_links(conn, options).await?;
    }
    if step < 3 {
        add_hosts(conn).await?;
    }
    if step < 4 {
        // Which request a commit was for.
        conn.batch("ALTER TABLE settled ADD COLUMN fingerprint bigint").await?;
    }
    if step < 5 {
        add_tags(conn).await?;
    }
    if step < 6 {
        cover_all(conn, step >= 1).await?;
    }
    if step < 7 {
        conn.batch(UNTIMED_INDEX).await?;
    }
    if step < 8 {
        // The id of a holder's last save.
        conn.batch("ALTER TABLE head ADD COLUMN last_save uuid").await?;
    }
    schema::mark(conn).await
}

/// Fails when a server may be alive in the store.
async fn refuse_while_in_use(conn: &Conn, options: &PostgresOptions) -> Result<(), Trouble> {
    let test_time: Option<i64> = match options.clock {
        PostgresClock::Server => None,
        #[cfg(any(test, feature = "test-util"))]
        PostgresClock::Env => Some(options.env.unix_ms()),
    };
    let sql = "SELECT s.job_id, s.renewed_ms + s.lease_ms - t.now_ms FROM server s, \
        (SELECT COALESCE($1::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
        AS now_ms) t WHERE s.dead_ms IS NULL AND s.renewed_ms + s.lease_ms > t.now_ms \
        ORDER BY 2 DESC LIMIT 1";
    let rows = conn.query(sql, &[&test_time]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (job, alive_for_ms): (&str, i64) = (get(row, 0)?, get(row, 1)?);
    let reason = format!(
        "the store is of an earlier format, and a server is alive in it; end all programs that use \
         it, or wait, and run `profilestore migrate` again: store=`{options}` job=`{job}` \
         alive_for_ms=`{alive_for_ms}`"
    );
    Err(StoreError::Unavailable { reason }.into())
}

/// Step 1: room for a checksum with each value, and another table for outcomes, so that no program
/// of format 1 that is connected can commit.
async fn add_checksums(conn: &Conn) -> Result<(), Trouble> {
    conn.batch(
        "ALTER TABLE head ADD COLUMN checksum integer; \
         ALTER TABLE version ADD COLUMN checksum integer; \
         ALTER TABLE outcome RENAME TO settled",
    )
    .await
}

/// Step 6: the checksum of a version covers what the version says of itself too, and a tombstone
/// has one. A version that was damaged before gets none, and so stays damaged. A schema of format 1
/// has no checksums that tell.
async fn cover_all(conn: &Conn, has_checksums: bool) -> Result<(), Trouble> {
    cover(
        conn,
        has_checksums,
        "SELECT store, scope, key, version, written_ms, stored_ms, load_count, flags, cause, \
         author, label, checksum, value FROM head \
         WHERE (store, scope, key, version) > ($1, $2, $3, $4) AND version > 0 \
         ORDER BY store, scope, key, version LIMIT $5",
        "UPDATE head h SET checksum = u.checksum \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::int[]) \
         AS u (store, scope, key, number, checksum) \
         WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key",
    )
    .await?;
    cover(
        conn,
        has_checksums,
        "SELECT store, scope, key, number, written_ms, stored_ms, load_count, flags, cause, \
         author, label, checksum, value FROM version \
         WHERE (store, scope, key, number) > ($1, $2, $3, $4) \
         ORDER BY store, scope, key, number LIMIT $5",
        "UPDATE version v SET checksum = u.checksum \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::int[]) \
         AS u (store, scope, key, number, checksum) \
         WHERE v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key \
         AND v.number = u.number",
    )
    .await
}

/// Step 3: who hosts a game server's engine.
async fn add_hosts(conn: &Conn) -> Result<(), Trouble> {
    conn.batch(
        "ALTER TABLE server ADD COLUMN host uuid, \
         ADD COLUMN generation bigint NOT NULL DEFAULT 0, ADD COLUMN owner text",
    )
    .await
}

/// Step 2: what the commit of a version did beyond the profile. Each role that may write to the
/// other tables may write to this one.
async fn add_links(conn: &Conn, options: &PostgresOptions) -> Result<(), Trouble> {
    conn.batch(
        "CREATE TABLE link (store text COLLATE \"C\" NOT NULL, scope text COLLATE \"C\" NOT NULL, \
         key text COLLATE \"C\" NOT NULL, number bigint NOT NULL, at_ms bigint NOT NULL, \
         links text NOT NULL, PRIMARY KEY (store, scope, key, number))",
    )
    .await?;
    let roles = "SELECT DISTINCT grantee::text FROM information_schema.role_table_grants \
        WHERE table_schema = $1 AND table_name = 'settled' AND privilege_type = 'INSERT' \
        AND grantee <> 'PUBLIC' AND grantee <> current_user";
    for row in conn.query(roles, &[&options.schema]).await? {
        schema::grant(conn, options, get(&row, 0)?).await?;
    }
    Ok(())
}

/// Step 5: by what an entry of the audit log is found, among the users of its key. An entry that
/// cannot be read gets none.
async fn add_tags(conn: &Conn) -> Result<(), Trouble> {
    let read = "SELECT key, value FROM head WHERE store = $1 AND scope = $2 AND key > $3 \
        AND value IS NOT NULL ORDER BY key LIMIT $4";
    let list = "UPDATE head h SET users = u.users \
        FROM unnest($3::text[], $4::bytea[]) AS u (key, users) \
        WHERE h.store = $1 AND h.scope = $2 AND h.key = u.key";
    let index = "INSERT INTO profile_user (store, scope, key, user_id) \
        SELECT $1, $2, u.key, u.tag FROM unnest($3::text[], $4::bigint[]) AS u (key, tag) \
        ON CONFLICT DO NOTHING";
    let mut last = String::new();
    loop {
        let rows = conn.query(read, &[&RESERVED_STORE, &AUDIT_SCOPE, &last, &PIECE]).await?;
        let (mut keys, mut packed) = (Vec::new(), Vec::<Vec<u8>>::new());
        let (mut tagged, mut tags) = (Vec::new(), Vec::new());
        for row in &rows {
            let key: String = get(row, 0)?;
            let found = tags_of_value(get(row, 1)?).unwrap_or_default();
            packed.push(found.iter().flat_map(|tag| tag.to_be_bytes()).collect());
            tagged.extend(found.iter().map(|_| key.clone()));
            tags.extend(found);
            keys.push(key);
        }
        let Some(newest) = keys.last() else { return Ok(()) };
        last.clone_from(newest);
        conn.query(list, &[&RESERVED_STORE, &AUDIT_SCOPE, &keys, &packed]).await?;
        conn.query(index, &[&RESERVED_STORE, &AUDIT_SCOPE, &tagged, &tags]).await?;
    }
}

/// Writes the checksum of every version of a table, a piece at a time.
async fn cover(
    conn: &Conn,
    has_checksums: bool,
    read: &'static str,
    write: &'static str,
) -> Result<(), Trouble> {
    let mut last = (String::new(), String::new(), String::new(), 0_i64);
    loop {
        let params: [&(dyn ToSql + Sync); 5] = [&last.0, &last.1, &last.2, &last.3, &PIECE];
        let rows = conn.query(read, &params).await?;
        let (mut stores, mut scopes, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let (mut numbers, mut sums) = (Vec::new(), Vec::new());
        for row in &rows {
            stores.push(get::<String>(row, 0)?);
            scopes.push(get::<String>(row, 1)?);
            keys.push(get::<String>(row, 2)?);
            numbers.push(get::<i64>(row, 3)?);
            sums.push(sum_of_row(row, has_checksums)?);
        }
        let (Some(store), Some(scope), Some(key), Some(number)) =
            (stores.last(), scopes.last(), keys.last(), numbers.last())
        else {
            return Ok(());
        };
        last = (store.clone(), scope.clone(), key.clone(), *number);
        conn.query(write, &[&stores, &scopes, &keys, &numbers, &sums]).await?;
    }
}

/// The checksum of a version that is not damaged.
fn sum_of_row(row: &Row, has_checksum: bool) -> Result<Option<i32>, StoreError> {
    let removed = get::<i64>(row, 7)? & REMOVED != 0;
    let stored = get::<Option<i32>>(row, 11)?.map(i32::cast_unsigned);
    let value = get::<Option<&[u8]>>(row, 12)?;
    if value.is_none() != removed
        || (has_checksum && !is_whole_before_step_6(removed, value, stored))
    {
        return Ok(None);
    }
    let covered = Covered {
        key: [get(row, 0)?, get(row, 1)?, get(row, 2)?],
        number: unsigned(row, 3)?,
        written_ms: get(row, 4)?,
        stored_ms: get(row, 5)?,
        load_count: unsigned(row, 6)?,
        removed,
        cause: get(row, 8)?,
        author: get(row, 9)?,
        label: get(row, 10)?,
    };
    Ok(Some(checksum(&covered, value).cast_signed()))
}
