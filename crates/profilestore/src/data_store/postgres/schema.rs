//! The tables: made by `migrate`, recognised when a store is opened.
//!
//! A `head` row a key holds the counters, the lease and the current version with its value, so that
//! a save changes one row in place (values beyond 2 KB lie outside of it and are not touched by a
//! change of the lease). Versions that are kept when they are replaced are copied to `version`.
//! Every table begins its primary key with the key's names or is reached by a server's or commit's
//! id, refers to no other table, and draws no number from a sequence: so each can be spread over
//! machines.
//!
//! A table has one index for each way in which its rows are looked up, and no two that begin alike:
//! between such two the planner may take the wrong one, and then reads a whole inbox for each of
//! its messages. So messages are found by number through the primary key alone, and by digest
//! through an index of expressions, which no other look-up can use.

use uuid::Uuid;

use super::{
    PostgresOptions,
    connect::{Conn, Dialer},
    trouble::Trouble,
};
use crate::data_store::{FORMAT_VERSION, Incarnation, StoreError};

/// Bits of `head.flags` and `version.flags`. The seal stands in `head` only: it matters for the
/// current version alone.
pub(super) const REMOVED: i64 = 1;
pub(super) const IMPORTED: i64 = 2;
pub(super) const PINNED: i64 = 4;
pub(super) const SEALED: i64 = 8;

/// The newest step of this format, as [`TABLES`] has it: each addition to the format of an
/// unreleased version is one. `meta` says which one a store has reached. The steps are listed in
/// `docs/decisions/format-2.md`, and `migrate.rs` makes them.
pub(super) const STEPS: i64 = 8;

/// What `meta` says in a schema that is a store's.
pub(super) const APPLICATION: &str = "profilestore";

/// The lock under which tables are made: `PROF`, as in the files of SQLite.
pub(super) const LOCK: i64 = 0x5052_4f46;

pub(super) const TABLES: &str = r#"
CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL);

CREATE TABLE head (
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    created_ms bigint NOT NULL DEFAULT 0,
    written_ms bigint NOT NULL DEFAULT 0,
    stored_ms bigint NOT NULL DEFAULT 0,
    load_count bigint NOT NULL DEFAULT 0,
    flags bigint NOT NULL DEFAULT 0,
    lease_revision bigint NOT NULL DEFAULT 0,
    inbox_revision bigint NOT NULL DEFAULT 0,
    last_message bigint NOT NULL DEFAULT 0,
    waiting bigint NOT NULL DEFAULT 0,
    holder uuid,
    held boolean NOT NULL DEFAULT false,
    cause text NOT NULL DEFAULT '',
    author text NOT NULL DEFAULT '',
    label text,
    users bytea NOT NULL DEFAULT '',
    lease text NOT NULL DEFAULT '{}',
    checksum integer,
    value bytea,
    last_save uuid,
    PRIMARY KEY (store, scope, key)
) WITH (fillfactor = 80);
ALTER TABLE head ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX head_held ON head (store, scope, key) WHERE held;

CREATE TABLE version (
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    written_ms bigint NOT NULL,
    stored_ms bigint NOT NULL,
    superseded_ms bigint NOT NULL,
    load_count bigint NOT NULL,
    flags bigint NOT NULL,
    cause text NOT NULL,
    author text NOT NULL,
    label text,
    checksum integer,
    value bytea,
    PRIMARY KEY (store, scope, key, number)
);
ALTER TABLE version ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE TABLE link (
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    at_ms bigint NOT NULL,
    links text NOT NULL,
    PRIMARY KEY (store, scope, key, number)
);

CREATE TABLE profile_user (
    user_id bigint NOT NULL,
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (user_id, store, scope, key)
);

CREATE TABLE message (
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    digest uuid NOT NULL,
    content uuid NOT NULL,
    created_ms bigint NOT NULL,
    sent_ms bigint NOT NULL,
    revision bigint NOT NULL,
    locked boolean NOT NULL,
    name text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (store, scope, key, number)
);
ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE receipt (
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    digest uuid NOT NULL,
    content uuid NOT NULL,
    made_ms bigint NOT NULL,
    PRIMARY KEY (store, scope, key, digest)
);

CREATE TABLE server (
    id uuid PRIMARY KEY,
    place_id bigint NOT NULL,
    job_id text NOT NULL,
    revision bigint NOT NULL,
    lease_ms bigint NOT NULL,
    started_ms bigint NOT NULL,
    renewed_ms bigint NOT NULL,
    dead_ms bigint,
    renewal uuid,
    host uuid,
    generation bigint NOT NULL DEFAULT 0,
    owner text
) WITH (fillfactor = 50);

CREATE TABLE notice (
    server uuid NOT NULL,
    store text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    commit_id uuid NOT NULL,
    PRIMARY KEY (server, store, scope, key)
);

CREATE TABLE settled (
    id uuid PRIMARY KEY,
    at_ms bigint NOT NULL,
    aborted boolean NOT NULL,
    fingerprint bigint
);
"#;

/// Finds a message by its id within its key.
pub(super) const DIGEST_INDEX: &str = "CREATE UNIQUE INDEX message_digest ON message (digest, (store || ''), \
    (scope || ''), (key || ''))";

/// Finds outcomes whose ids may tell no time by their age, for the sweep.
pub(super) const UNTIMED_INDEX: &str = "CREATE INDEX IF NOT EXISTS settled_untimed ON settled (at_ms) \
    WHERE fingerprint IS NOT NULL OR aborted";

/// What a schema turned out to be.
pub(super) enum Found {
    Nothing,
    /// A store of this format.
    Store,
    /// A store that is to be migrated, with the last step that it has reached.
    Earlier(i64),
}

/// Says that the schema is a store of this format and step.
pub(super) async fn mark(conn: &Conn) -> Result<(), Trouble> {
    conn.batch(&format!(
        "DELETE FROM meta WHERE name IN ('format', 'step'); \
         INSERT INTO meta (name, value) VALUES ('format', '{FORMAT_VERSION}'), ('step', '{STEPS}')"
    ))
    .await
}

/// Keys and names are Unicode. A database of another encoding would refuse some of them, one by one
/// and later.
pub(super) async fn check_encoding(conn: &Conn, options: &PostgresOptions) -> Result<(), Trouble> {
    let rows = conn.query("SHOW server_encoding", &[]).await?;
    let encoding: String = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    // SQL_ASCII stores the bytes that it is given.
    if ["UTF8", "UTF-8", "SQL_ASCII"].contains(&encoding.to_uppercase().as_str()) {
        return Ok(());
    }
    let reason = format!(
        "the database cannot hold every key; make one with ENCODING 'UTF8' (CREATE DATABASE … TEMPLATE template0): \
         store=`{options}` encoding=`{encoding}`"
    );
    Err(StoreError::Invalid { reason }.into())
}

/// Adds what tables of earlier versions lack. True when something was added.
pub(super) async fn add_missing(conn: &Conn, schema: &str) -> Result<bool, Trouble> {
    let known = "SELECT 1 FROM information_schema.columns \
         WHERE table_schema = $1 AND table_name = 'server' AND column_name = 'renewal'";
    let missing = conn.query(known, &[&schema]).await?.is_empty();
    if missing {
        conn.batch(&format!("ALTER TABLE {schema}.server ADD COLUMN renewal uuid")).await?;
    }
    let unindexed = !has_digest_index(conn, schema).await?;
    if unindexed {
        // The index of earlier versions began as the primary key does.
        conn.batch(&format!(
            "ALTER TABLE {schema}.message DROP CONSTRAINT IF EXISTS \
                message_store_scope_key_digest_key; {DIGEST_INDEX}"
        ))
        .await?;
    }
    Ok(missing || unindexed)
}

/// Whether messages can be found by their digests.
async fn has_digest_index(conn: &Conn, schema: &str) -> Result<bool, Trouble> {
    let known = "SELECT 1 FROM pg_indexes WHERE schemaname = $1 AND indexname = 'message_digest'";
    Ok(!conn.query(known, &[&schema]).await?.is_empty())
}

pub(super) async fn grant(
    conn: &Conn,
    options: &PostgresOptions,
    role: &str,
) -> Result<(), Trouble> {
    let schema = &options.schema;
    let role = quoted(role)?;
    conn.batch(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}; \
         GRANT INSERT, UPDATE, DELETE ON head, version, link, profile_user, message, receipt, server, notice, settled TO {role}"
    ))
    .await
}

/// A name in quotes.
fn quoted(name: &str) -> Result<String, StoreError> {
    if name.is_empty() || name.contains('\0') {
        return Err(StoreError::Invalid { reason: "the role has no name".into() });
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// Whether the schema is a store that this version reads; fails when it is anything else.
pub(super) async fn check(conn: &Conn, options: &PostgresOptions) -> Result<(), StoreError> {
    match identify(conn, options).await.map_err(Trouble::not_applied)? {
        Found::Store
            if has_digest_index(conn, &options.schema).await.map_err(Trouble::not_applied)? =>
        {
            Ok(())
        }
        Found::Store => Err(StoreError::Invalid {
            reason: format!(
                "the store lacks an index that this version needs; run `profilestore \
                migrate`: store=`{options}`"
            ),
        }),
        Found::Earlier(_) => Err(StoreError::Invalid {
            reason: format!(
                "the store is of an earlier format; end all programs that use it, and run \
                `profilestore migrate`: store=`{options}`"
            ),
        }),
        Found::Nothing => Err(StoreError::Invalid {
            reason: format!(
                "there is no store in this database yet; make it with `profilestore \
                migrate`: store=`{options}`"
            ),
        }),
    }
}

pub(super) async fn identify(conn: &Conn, options: &PostgresOptions) -> Result<Found, Trouble> {
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = $1";
    let rows = conn.query(tables, &[&options.schema]).await?;
    let names: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if names.is_empty() {
        // Perhaps it is there and the role may not see it.
        let exists =
            conn.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&options.schema]).await?;
        let usable = "SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE \
            n.nspname = $1";
        let denied = !exists.is_empty() && {
            let rows = conn.query(usable, &[&options.schema]).await?;
            rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()? == Some(false)
        };
        if denied {
            let reason = format!(
                "the role may not use the schema; grant it with `profilestore migrate \
                    --grant`: store=`{options}`"
            );
            return Err(StoreError::Invalid { reason }.into());
        }
        return Ok(Found::Nothing);
    }
    let foreign = || -> Trouble {
        let reason = format!(
            "the schema belongs to another application, and is left alone; name another one in the URL (?schema=NAME): \
             store=`{options}` schema=`{}`",
            options.schema
        );
        StoreError::Invalid { reason }.into()
    };
    if !names.iter().any(|name| name == "meta") {
        return Err(foreign());
    }
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'meta' \
         AND column_name IN ('name', 'value') AND data_type = 'text'";
    let rows = conn.query(columns, &[&options.schema]).await?;
    if rows.first().map(|row| row.try_get::<_, i64>(0)).transpose()? != Some(2) {
        return Err(foreign());
    }
    let meta = conn
        .query("SELECT name, value FROM meta WHERE name IN ('application', 'format', 'step')", &[])
        .await?;
    let mut said = [None, None, None];
    for row in &meta {
        let at = match row.try_get(0)? {
            "application" => 0,
            "format" => 1,
            _ => 2,
        };
        said[at] = Some(row.try_get::<_, String>(1)?);
    }
    match said {
        [Some(application), Some(format), step] if application == APPLICATION => {
            let number = |text: &str| text.parse::<i64>().unwrap_or(-1);
            let reached = step.as_deref().map_or(0, number);
            match number(&format) {
                1 => return Ok(Found::Earlier(0)),
                found if found != i64::from(FORMAT_VERSION) => {}
                _ if reached == STEPS => return Ok(Found::Store),
                _ if (1..STEPS).contains(&reached) => return Ok(Found::Earlier(reached)),
                _ => {}
            }
            let reason = format!(
                "the store was written in another format; open it with the version that wrote it, or a newer one: \
                 store=`{options}` expected=`{FORMAT_VERSION}` step=`{STEPS}` found=`{format}` step=`{reached}`"
            );
            Err(StoreError::Invalid { reason }.into())
        }
        _ => Err(foreign()),
    }
}

/// Gives the contents a new identity, so that game servers of before a restored backup cannot write
/// to it.
pub(super) async fn renew_incarnation(
    options: &PostgresOptions,
) -> Result<Incarnation, StoreError> {
    let conn = Dialer::new(options.clone()).connect().await?;
    check(&conn, options).await?;
    let new = options.env.uuid();
    let sql = "UPDATE meta SET value = $1 WHERE name = 'incarnation'";
    conn.query(sql, &[&new.to_string()]).await.map_err(Trouble::not_applied)?;
    Ok(Incarnation(new))
}

/// The identity of the contents as `meta` has it.
pub(super) fn incarnation(text: Option<&str>) -> Result<Incarnation, StoreError> {
    let found = text.and_then(|text| Uuid::parse_str(text).ok());
    let missing = || StoreError::Corrupt {
        reason: "the store does not say which contents it holds: table=`meta`".into(),
    };
    found.map(Incarnation).ok_or_else(missing)
}
