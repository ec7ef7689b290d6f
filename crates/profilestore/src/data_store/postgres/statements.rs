//! The statements that write a batch, and those that read again for its answers.
//!
//! One statement a kind of row, its rows as arrays, in the order of their keys.

/// The columns of a head's current version, in the statements' order.
macro_rules! data_columns {
    () => {
        "version, flags, written_ms, stored_ms, load_count, cause, author, label, checksum, value"
    };
}

/// Everything else in it.
macro_rules! rest_columns {
    () => {
        "epoch, created_ms, users, lease_revision, inbox_revision, last_message, waiting, held, \
            holder, lease"
    };
}

pub(super) const INSERT_HEADS: &str = concat!(
    "INSERT INTO head (store, scope, key, ",
    data_columns!(),
    ", ",
    rest_columns!(),
    ", last_save) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[], $14::bigint[], $15::bigint[], $16::bytea[], $17::bigint[], \
     $18::bigint[], $19::bigint[], $20::bigint[], $21::bool[], $22::uuid[], $23::text[], $24::uuid[])"
);

pub(super) const UPDATE_DATA: &str = concat!(
    "UPDATE head h SET version = u.version, flags = u.flags, written_ms = u.written_ms, stored_ms = u.stored_ms, \
     load_count = u.load_count, cause = u.cause, author = u.author, label = u.label, checksum = u.checksum, value = u.value, \
     last_save = u.last_save \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], \
     $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[], $14::uuid[]) AS u (store, scope, key, ",
    data_columns!(),
    ", last_save) WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const UPDATE_REST: &str = concat!(
    "UPDATE head h SET flags = u.flags, epoch = u.epoch, created_ms = u.created_ms, users = u.users, \
     lease_revision = u.lease_revision, inbox_revision = u.inbox_revision, last_message = u.last_message, waiting = u.waiting, \
     held = u.held, holder = u.holder, lease = u.lease, last_save = u.last_save \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bigint[], \
     $9::bigint[], $10::bigint[], $11::bigint[], $12::bool[], $13::uuid[], $14::text[], $15::uuid[]) \
     AS u (store, scope, key, flags, ",
    rest_columns!(),
    ", last_save) WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const UPDATE_ALL: &str = concat!(
    "UPDATE head h SET version = u.version, flags = u.flags, written_ms = u.written_ms, stored_ms = u.stored_ms, \
     load_count = u.load_count, cause = u.cause, author = u.author, label = u.label, checksum = u.checksum, value = u.value, \
     epoch = u.epoch, created_ms = u.created_ms, users = u.users, lease_revision = u.lease_revision, \
     inbox_revision = u.inbox_revision, last_message = u.last_message, waiting = u.waiting, held = u.held, holder = u.holder, \
     lease = u.lease, last_save = u.last_save \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], \
     $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[], $14::bigint[], $15::bigint[], $16::bytea[], $17::bigint[], $18::bigint[], \
     $19::bigint[], $20::bigint[], $21::bool[], $22::uuid[], $23::text[], $24::uuid[]) AS u (store, scope, key, ",
    data_columns!(),
    ", ",
    rest_columns!(),
    ", last_save) WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const KEEP_VERSIONS: &str = "INSERT INTO version (store, scope, key, number, written_ms, stored_ms, superseded_ms, load_count, \
     flags, cause, author, label, checksum, value) \
     SELECT h.store, h.scope, h.key, h.version, h.written_ms, h.stored_ms, $5::bigint, h.load_count, u.flags, h.cause, h.author, \
     h.label, h.checksum, h.value FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, flags) \
     JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key";

pub(super) const PIN_VERSIONS: &str = "UPDATE version v SET flags = CASE WHEN u.pinned THEN v.flags | 4 ELSE v.flags & ~4::bigint END \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bool[]) AS u (store, scope, key, number, pinned) \
     WHERE v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key AND v.number = u.number";

pub(super) const FORGET_USERS: &str = "DELETE FROM profile_user p \
     USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, user_id) \
     WHERE p.user_id = ANY(ARRAY[u.user_id]) AND p.store = u.store AND p.scope = u.scope AND p.key = u.key";

pub(super) const ADD_USERS: &str = "INSERT INTO profile_user (store, scope, key, user_id) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])";

pub(super) const RECEIPTS: &str = "INSERT INTO receipt (store, scope, key, digest, content, made_ms) \
     SELECT m.store, m.scope, m.key, m.digest, m.content, $5::bigint \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, number) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number \
     ON CONFLICT (store, scope, key, digest) DO UPDATE SET content = EXCLUDED.content, made_ms = EXCLUDED.made_ms";

pub(super) const REMOVE_MESSAGES: &str = "DELETE FROM message m \
     USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, number) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number";

pub(super) const EDIT_MESSAGES: &str = "UPDATE message m SET payload = COALESCE(u.payload, m.payload), revision = m.revision + u.revisions, \
     locked = COALESCE(u.lock, m.locked) \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bool[]) \
     AS u (store, scope, key, number, payload, revisions, lock) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number";

pub(super) const INSERT_MESSAGES: &str = "INSERT INTO message (store, scope, key, number, digest, content, created_ms, sent_ms, revision, \
     locked, name, payload) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::uuid[], \
     $7::bigint[], $8::bigint[], $9::bigint[], $10::bool[], $11::text[], $12::bytea[])";

pub(super) const ERASE_VERSIONS: &str = "DELETE FROM version v USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key";

pub(super) const INSERT_LINKS: &str = "INSERT INTO link (store, scope, key, number, at_ms, links) \
     SELECT u.store, u.scope, u.key, u.number, $6::bigint, u.links \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) AS u (store, scope, key, number, links) \
     ON CONFLICT DO NOTHING";

pub(super) const ERASE_LINKS: &str = "DELETE FROM link l USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE l.store = ANY(ARRAY[u.store]) AND l.scope = u.scope AND l.key = u.key";

pub(super) const ERASE_RECEIPTS: &str = "INSERT INTO receipt (store, scope, key, digest, content, made_ms) \
     SELECT m.store, m.scope, m.key, m.digest, m.content, $4::bigint \
     FROM unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key \
     ON CONFLICT (store, scope, key, digest) DO UPDATE SET content = EXCLUDED.content, made_ms = EXCLUDED.made_ms";

pub(super) const ERASE_MESSAGES: &str = "DELETE FROM message m USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key";

pub(super) const INSERT_SERVERS: &str = "INSERT INTO server (id, place_id, job_id, revision, lease_ms, started_ms, renewed_ms, dead_ms, \
     host, generation, owner) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::uuid[], $10::bigint[], $11::text[])";

pub(super) const RENEW_SERVERS: &str = "UPDATE server s SET revision = u.revision, renewed_ms = u.renewed_ms, renewal = u.renewal \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[]) AS u (id, revision, renewed_ms, renewal) WHERE s.id = ANY(ARRAY[u.id])";

pub(super) const REHOST_SERVERS: &str = "UPDATE server s SET revision = u.revision, renewed_ms = u.renewed_ms, host = u.host, \
     generation = u.generation \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[]) AS u (id, revision, renewed_ms, host, generation) \
     WHERE s.id = ANY(ARRAY[u.id])";

pub(super) const BURY_SERVERS: &str =
    "UPDATE server s SET dead_ms = $2::bigint WHERE s.id = ANY($1::uuid[]) AND s.dead_ms IS NULL";

// Locked in order first: a notice is changed by two sides, its server and the one that leaves it a
// newer one.
pub(super) const FORGET_NOTICES: &str = "WITH gone AS MATERIALIZED (SELECT n.server, n.store, n.scope, n.key FROM \
     unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) WITH ORDINALITY \
     AS u (store, scope, key, server, commit_id, at) JOIN notice n \
     ON n.server = ANY(ARRAY[u.server]) AND n.store = u.store AND n.scope = u.scope AND n.key = u.key AND n.commit_id = u.commit_id \
     ORDER BY u.at FOR UPDATE OF n) \
     DELETE FROM notice n USING gone g WHERE n.server = ANY(ARRAY[g.server]) AND n.store = g.store AND n.scope = g.scope AND n.key = g.key";

pub(super) const INSERT_OUTCOMES: &str = "INSERT INTO settled (id, at_ms, aborted, fingerprint) \
    SELECT u.id, $4::bigint, u.aborted, u.fingerprint \
    FROM unnest($1::uuid[], $2::bool[], $3::bigint[]) AS u (id, aborted, fingerprint)";

pub(super) const LEAVE_NOTICES: &str = "INSERT INTO notice (store, scope, key, server, commit_id) \
     SELECT u.store, u.scope, u.key, u.server, u.commit_id FROM \
     unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) WITH ORDINALITY \
     AS u (store, scope, key, server, commit_id, at) \
     WHERE (SELECT s.dead_ms IS NULL FROM server s WHERE s.id = u.server) ORDER BY u.at \
     ON CONFLICT (server, store, scope, key) DO UPDATE SET commit_id = EXCLUDED.commit_id \
     RETURNING store, scope, key, server";

pub(super) const INBOXES: &str = "SELECT u.n, m.number, m.created_ms, m.name, m.payload, m.locked, m.revision, m.sent_ms \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u (store, scope, key, n) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key ORDER BY u.n, m.number";

pub(super) const VALUES: &str = "SELECT u.n, h.checksum, h.value FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY \
     AS u (store, scope, key, n) JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key";

pub(super) const NOTICES: &str = "SELECT n.store, n.scope, n.key, n.server, n.commit_id FROM notice n WHERE n.server = ANY($1::uuid[]) \
     ORDER BY n.server, n.store, n.scope, n.key";
