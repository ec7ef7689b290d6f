//! Reads: a bounded pool of connections, and what is asked of them. What takes more than one
//! statement is read in one snapshot.

use tokio::sync::SemaphorePermit;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    Inner,
    connect::{Answers, Conn, Step},
    load,
    pool::Lease,
    schema,
    state::{
        self, HEAD_COLUMNS, Head, get, head_columns, own_columns, server_columns, server_of_row,
        unsigned,
    },
    statements,
    trouble::Trouble,
    write,
};
use crate::{
    data_store::{
        Identity, KeyFilter, KeyQuery, KeyState, Order, Returning, ServerRow, Snapshot, StoreError,
        StoredVersion, VersionInfo, VersionLinks, VersionQuery, VersionRef, pages,
        rules::end_of_prefix,
    },
    key::ProfileKey,
};

pub(super) const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
     (SELECT value FROM meta WHERE name = 'incarnation')";

pub(super) const SERVERS: &str =
    concat!("SELECT ", server_columns!(), " FROM server s ORDER BY s.id");

pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The kept versions of a key and the current one. `$kept` restricts the kept ones, for the index
/// to go by.
macro_rules! versions {
    ($value:literal, $kept:literal, $conditions:literal) => {
        concat!(
            "SELECT v.number, v.label, v.written_ms, v.stored_ms, v.superseded_ms, v.flags, v.cause, v.author, v.load_count, \
             octet_length(v.value)::bigint",
            $value,
            " FROM (SELECT version AS number, label, written_ms, stored_ms, NULL::bigint AS superseded_ms, flags, cause, author, \
             load_count, checksum, value FROM head WHERE store = $1 AND scope = $2 AND key = $3 AND version > 0 UNION ALL \
             (SELECT number, label, written_ms, stored_ms, superseded_ms, flags, cause, author, load_count, checksum, value FROM version \
             WHERE store = $1 AND scope = $2 AND key = $3 AND ",
            $kept,
            ")) v WHERE ",
            $conditions
        )
    };
}

pub(super) const VERSION_NUMBERED: &str =
    versions!(", v.checksum, v.value", "number = $4", "v.number = $4 LIMIT 1");
pub(super) const VERSION_LABELLED: &str =
    versions!(", v.checksum, v.value", "label = $4", "v.label = $4 ORDER BY v.number DESC LIMIT 1");
pub(super) const VERSIONS_UP: &str = versions!(
    "",
    "number > $4 AND written_ms >= $5 AND written_ms <= $6 ORDER BY number LIMIT $7",
    "v.number > $4 AND v.written_ms >= $5 AND v.written_ms <= $6 ORDER BY v.number LIMIT $7"
);
pub(super) const VERSIONS_DOWN: &str = versions!(
    "",
    "number < $4 AND written_ms >= $5 AND written_ms <= $6 ORDER BY number DESC LIMIT $7",
    "v.number < $4 AND v.written_ms >= $5 AND v.written_ms <= $6 ORDER BY v.number DESC LIMIT $7"
);

pub(super) const LINKS: &str = "SELECT number, at_ms, links FROM link \
     WHERE store = $1 AND scope = $2 AND key = $3 AND number > $4 ORDER BY number LIMIT $5";

/// What is asked of a connection at once.
pub(super) enum Question<'a> {
    /// Statements, if need be in one snapshot.
    Steps { steps: &'a [Step<'a>], snapshot: bool },
    /// A statement that was put together for the occasion.
    Typed(&'a str, &'a [(&'a (dyn ToSql + Sync), Type)]),
}

impl Question<'_> {
    async fn ask(&self, conn: &Conn) -> Result<Vec<Vec<Row>>, Trouble> {
        match self {
            Self::Steps { steps, snapshot } => {
                let (begin, end) =
                    if *snapshot { (Some(BEGIN_SNAPSHOT), Some("COMMIT")) } else { (None, None) };
                let Answers { began, rows, ended } =
                    conn.pipeline(begin, steps, end).await?.ok_or(Trouble::Silent)?;
                let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
                began?;
                ended?;
                Ok(rows)
            }
            Self::Typed(sql, params) => {
                Ok(vec![conn.in_time(conn.client.query_typed(sql, params)).await?])
            }
        }
    }
}

/// A connection for one who reads.
pub(super) struct Reading<'a> {
    lease: Lease,
    _turn: SemaphorePermit<'a>,
}

impl Reading<'_> {
    pub(super) async fn connection(&mut self) -> Result<&Conn, StoreError> {
        self.lease.connection().await
    }

    /// All was read.
    pub(super) fn done(mut self) {
        self.lease.rest();
    }

    /// Takes a connection that is not fit for use any more out of the pool.
    pub(super) fn discard(mut self) {
        self.lease.discard();
    }
}

impl Inner {
    pub(super) async fn reader(&self) -> Result<Reading<'_>, StoreError> {
        let closed = |_| StoreError::Unavailable { reason: "the store is closed".into() };
        let turn = self.reading.acquire().await.map_err(closed)?;
        Ok(Reading { lease: self.pool.take().await?, _turn: turn })
    }

    /// Asks on a connection of the pool, which is replaced if that fails; once more where the
    /// connection had been lost before.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut again = true;
        loop {
            let mut conn = self.reader().await?;
            let trouble = match question.ask(conn.connection().await?).await {
                Ok(rows) => {
                    conn.done();
                    return Ok(rows);
                }
                Err(trouble) => trouble,
            };
            let lost = trouble.is_disconnected() && !matches!(trouble, Trouble::Silent);
            conn.discard();
            if !(lost && std::mem::take(&mut again)) {
                return Err(trouble.not_applied());
            }
            // Its companions were lost with it.
            self.pool.drop_closed();
        }
    }

    /// Asks with one statement.
    async fn ask_one(&self, step: Step<'_>) -> Result<Vec<Row>, StoreError> {
        let rows = self.ask(Question::Steps { steps: &[step], snapshot: false }).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    pub(super) async fn identity(&self) -> Result<Identity, StoreError> {
        let rows = self.ask_one(Step::new(NOW)).await?;
        let row = rows.first().ok_or_else(nothing)?;
        let now_ms = self.time(row)?;
        Ok(Identity { incarnation: schema::incarnation(get(row, 1)?)?, now_ms })
    }

    pub(super) async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        if let [key] = keys
            && let Some(snapshot) = self.read_alone(key, returning).await?
        {
            return Ok(snapshot);
        }
        let wanted = vec![returning.value; keys.len()];
        let mut steps = vec![Step::new(NOW), Step::keys(load::HEADS, keys.iter()).with(wanted)];
        // One statement sees one moment by itself; the time may be of the one before.
        let snapshot = returning.inbox_unless.is_some();
        if snapshot {
            steps.push(Step::keys(statements::INBOXES, keys.iter()));
        }
        let rows = self.ask(Question::Steps { steps: &steps, snapshot }).await?;
        let now_ms = self.time(rows[0].first().ok_or_else(nothing)?)?;
        let mut heads: Vec<Head> = keys.iter().cloned().map(Head::absent).collect();
        for row in &rows[1] {
            let at = place(row, HEAD_COLUMNS, keys.len())?;
            heads[at] = Head::of_row(keys[at].clone(), row, 0)?;
            if returning.value {
                heads[at].read_value(row, HEAD_COLUMNS + 1)?;
            }
        }
        let mut messages: Vec<Vec<_>> = keys.iter().map(|_| Vec::new()).collect();
        for row in rows.get(2).into_iter().flatten() {
            let at = place(row, 0, keys.len())?;
            messages[at].push(write::message_of_row(&keys[at], row)?);
        }
        let states = heads.into_iter().zip(messages).map(|(head, inbox)| {
            let holder = head.holder.clone();
            head.state(returning, holder, inbox)
        });
        Ok(Snapshot { now_ms, states: states.collect() })
    }

    pub(super) async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        let of_key = |sql| Step::new(sql).with(key.store()).with(key.scope()).with(key.key());
        let rows = match version {
            VersionRef::Number(number) => {
                self.ask_one(of_key(VERSION_NUMBERED).with(number.cast_signed())).await?
            }
            VersionRef::Label(label) if label.contains('\0') => return Ok(None),
            VersionRef::Label(label) => {
                self.ask_one(of_key(VERSION_LABELLED).with(label.as_str())).await?
            }
        };
        let found = rows.first().map(|row| {
            let info = info_of_row(key, row)?;
            Ok(StoredVersion { value: state::value(row, 10, key, &info)?, info })
        });
        found.transpose()
    }

    pub(super) async fn versions(
        &self,
        query: &VersionQuery,
    ) -> Result<Vec<VersionInfo>, StoreError> {
        let key = &query.key;
        let (sql, beyond) = match query.order {
            Order::Ascending => (VERSIONS_UP, query.after.map_or(0, u64::cast_signed)),
            Order::Descending => (VERSIONS_DOWN, query.after.map_or(i64::MAX, u64::cast_signed)),
        };
        let step = Step::new(sql).with(key.store()).with(key.scope()).with(key.key());
        let step = step
            .with(beyond)
            .with(query.from_ms.unwrap_or(i64::MIN))
            .with(query.to_ms.unwrap_or(i64::MAX));
        let rows = self.ask_one(step.with(i64::try_from(query.limit).unwrap_or(i64::MAX))).await?;
        rows.iter().map(|row| info_of_row(key, row)).collect()
    }

    pub(super) async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        let step = Step::new(LINKS).with(key.store()).with(key.scope()).with(key.key());
        let step = step.with(after.cast_signed()).with(i64::try_from(limit).unwrap_or(i64::MAX));
        let links = |row: &Row| {
            let number = unsigned(row, 0)?;
            let links = serde_json::from_str(get(row, 2)?).map_err(|err| {
                state::corrupt(format!(
                    "the links of a version cannot be read: {err}: key=`{key}` version=`{number}`"
                ))
            })?;
            Ok(VersionLinks::new(number, get(row, 1)?, links))
        };
        self.ask_one(step).await?.iter().map(links).collect()
    }

    pub(super) async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        let steps = [Step::new(NOW), Step::new(SERVERS)];
        let rows = self.ask(Question::Steps { steps: &steps, snapshot: false }).await?;
        let now_ms = self.time(rows[0].first().ok_or_else(nothing)?)?;
        let servers = rows[1].iter().map(|row| server_of_row(row, 0)).collect::<Result<_, _>>()?;
        Ok((now_ms, servers))
    }

    pub(super) async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let mut params: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&limit, Type::INT8)];
        let mut place = |param, kind| {
            params.push((param, kind));
            params.len()
        };
        let (prefixes, filter) = query.filter.parts();
        // Whose index gives the order.
        let by = if matches!(filter, KeyFilter::User(_)) { "p" } else { "h" };
        // A row that only serves as a lock is no key.
        let mut sql = String::from(
            "(h.version > 0 OR h.lease_revision > 0 OR h.inbox_revision > 0 OR h.last_message > 0)",
        );
        for (column, name) in [("store", &query.store), ("scope", &query.scope)] {
            if let Some(name) = name {
                if name.contains('\0') {
                    return Ok(Vec::new());
                }
                sql.push_str(&format!(" AND {by}.{column} = ${}", place(name, Type::TEXT)));
            }
        }
        let after = pages::begins_after(query);
        if !after.is_empty() {
            let columns: Vec<_> =
                after.iter().map(|(column, _)| format!("{by}.{column}")).collect();
            let places = after.iter().map(|(_, name)| format!("${}", place(name, Type::TEXT)));
            let places = places.collect::<Vec<_>>().join(", ");
            sql.push_str(&format!(" AND ({}) > ({places})", columns.join(", ")));
        }
        let ends: Vec<_> = prefixes.iter().map(|prefix| end_of_prefix(prefix)).collect();
        for (prefix, end) in prefixes.iter().zip(&ends) {
            if prefix.contains('\0') {
                return Ok(Vec::new());
            }
            if !pages::is_within(query, prefix) {
                sql.push_str(&format!(" AND {by}.key >= ${}", place(prefix, Type::TEXT)));
            }
            if let Some(end) = end {
                sql.push_str(&format!(" AND {by}.key < ${}", place(end, Type::TEXT)));
            }
        }
        let mut source = "head h";
        match filter {
            KeyFilter::User(user) => {
                source = "profile_user p JOIN head h ON h.store = p.store AND h.scope = p.scope \
                    AND h.key = p.key";
                sql.push_str(&format!(" AND p.user_id = ${}", place(user, Type::INT8)));
            }
            KeyFilter::UpdatedSince(since) => {
                sql.push_str(&format!(
                    " AND h.version > 0 AND h.stored_ms >= ${}",
                    place(since, Type::INT8)
                ));
            }
            KeyFilter::Held => sql.push_str(" AND h.held"),
            _ => {}
        }
        let sql = format!(
            concat!(
                "SELECT ",
                head_columns!(),
                ", h.store, h.scope, h.key FROM {source} LEFT JOIN server s ON s.id = h.holder WHERE {sql} \
                 ORDER BY {by}.store, {by}.scope, {by}.key LIMIT $1"
            ),
            source = source,
            sql = sql,
            by = by
        );
        let rows = self.ask(Question::Typed(&sql, &params)).await?;
        let state = |row: &Row| {
            let head = Head::of_row(state::key_of_row(row, HEAD_COLUMNS)?, row, 0)?;
            let holder = head.holder.clone();
            Ok(head.state(Returning::HEAD, holder, Vec::new()))
        };
        rows.iter().flatten().map(state).collect()
    }

    /// The time that a row's first column tells, unless a test's clock is used.
    fn time(&self, row: &Row) -> Result<i64, StoreError> {
        self.test_time().map_or_else(|| get(row, 0), Ok)
    }
}

/// Which of so many keys a row is about, counted from 1 in a column.
fn place(row: &Row, column: usize, keys: usize) -> Result<usize, StoreError> {
    let at = usize::try_from(get::<i64>(row, column)? - 1).ok().filter(|at| *at < keys);
    at.ok_or_else(|| state::corrupt("the database answered what was not asked".into()))
}

fn info_of_row(key: &ProfileKey, row: &Row) -> Result<VersionInfo, StoreError> {
    let flags: i64 = get(row, 5)?;
    Ok(VersionInfo {
        number: unsigned(row, 0)?,
        label: get(row, 1)?,
        written_ms: get(row, 2)?,
        stored_ms: get(row, 3)?,
        superseded_ms: get(row, 4)?,
        removed: flags & schema::REMOVED != 0,
        cause: state::cause(get(row, 6)?, key)?,
        author: get(row, 7)?,
        load_count: unsigned(row, 8)?,
        pinned: flags & schema::PINNED != 0,
        bytes: get::<Option<i64>>(row, 9)?.unwrap_or(0).cast_unsigned(),
    })
}

pub(super) fn nothing() -> StoreError {
    state::corrupt("the database gave no answer".into())
}
