//! Connections: made to the first host that may be written to, set up, watched for warnings, and
//! not made more often than makes sense while the database is away.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _, TryStreamExt as _,
    future::{join_all, poll_fn},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::Instant,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection, NoTls, Notification, Row, Socket, Statement,
    error::{DbError, Severity, SqlState},
    types::ToSql,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    PostgresOptions,
    trouble::{Trouble, is_transport, refused_to_commit},
};
use crate::{data_store::StoreError, key::ProfileKey};

/// How long to leave the database alone after a failed attempt: from the first to the last,
/// doubling. Short beside any lease time: a renewal must not wait for it.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// How long to wait beyond the server's own time limit before the client gives a statement up.
const GRACE: Duration = Duration::from_secs(2);

/// The server counts milliseconds in 31 bits.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// What the session of a store is set up with. Settings that an engine of the same protocol does
/// not know are left out one by one.
const PLAN_SETTINGS: [&str; 5] = [
    // Arrays of a few keys against large tables: only index look-ups are ever right, also before
    // the first ANALYZE.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
];

/// Is told of notifications, by the task that serves the connection: must not wait.
pub(crate) type Heard = Arc<dyn Fn(Notification) + Send + Sync>;

/// Makes connections.
pub(crate) struct Dialer {
    pub(super) options: PostgresOptions,
    tls: Option<MakeRustlsConnect>,
    /// The host that was reachable last.
    host: AtomicUsize,
    failed: Mutex<Option<Failed>>,
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) error: StoreError,
    /// The server has as many connections as it allows.
    pub(super) too_many: bool,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self { error, too_many: false }
    }
}

struct Failed {
    until: Instant,
    pause: Duration,
    refusal: Refusal,
}

/// A connection with the statements that were prepared on it.
pub(crate) struct Conn {
    pub(super) client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    warning: Arc<Mutex<Option<String>>>,
    ended: Arc<Notify>,
    patience: Duration,
}

/// Parameters of a statement.
pub(super) type Params<'a> = [&'a (dyn ToSql + Sync)];

/// A statement with its parameters, to be sent with others.
pub(crate) struct Step<'a> {
    pub(super) sql: &'static str,
    params: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(sql: &'static str) -> Self {
        Self { sql, params: Vec::new() }
    }

    /// A statement whose first three parameters are the names of keys.
    pub(super) fn keys(sql: &'static str, keys: impl Iterator<Item = &'a ProfileKey>) -> Self {
        let (mut stores, mut scopes, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            stores.push(key.store());
            scopes.push(key.scope());
            names.push(key.key());
        }
        Self::new(sql).with(stores).with(scopes).with(names)
    }

    pub(super) fn push(&mut self, param: impl ToSql + Sync + Send + 'a) {
        self.params.push(Box::new(param));
    }

    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
    }

    #[must_use]
    pub(crate) fn with(mut self, param: impl ToSql + Sync + Send + 'a) -> Self {
        self.push(param);
        self
    }
}

/// What each statement of a pipeline answered, and whether the statements around them went through.
pub(super) struct Answers {
    pub(super) began: Result<(), tokio_postgres::Error>,
    pub(super) rows: Vec<Result<Vec<Row>, tokio_postgres::Error>>,
    pub(super) ended: Result<(), tokio_postgres::Error>,
}

/// What became of a statement that is a transaction of its own.
pub(super) enum Alone {
    /// It was committed, with this row as its answer.
    Committed(Row),
    /// It found nothing, and did nothing.
    Nothing,
    /// Nothing was applied.
    Not(Trouble),
    /// The connection was lost: it may have been applied.
    Lost(String),
    /// It may have been applied, or may yet be.
    Unknown(String),
}

impl Dialer {
    pub(crate) fn new(mut options: PostgresOptions) -> Self {
        options.statement_timeout = options.statement_timeout.min(LONGEST_TIMEOUT);
        let tls = options.tls.as_deref().cloned().map(MakeRustlsConnect::new);
        Self { options, tls, host: AtomicUsize::new(0), failed: Mutex::new(None) }
    }

    /// A connection set up for a store. Fails at once for a while after a failure.
    pub(super) async fn connect(&self) -> Result<Conn, StoreError> {
        self.connect_with(None).await
    }

    /// A connection that tells of its notifications.
    pub(crate) async fn connect_with(&self, heard: Option<Heard>) -> Result<Conn, StoreError> {
        self.try_connect(heard).await.map_err(|refusal| refusal.error)
    }

    /// The same, and what kind of refusal it is otherwise.
    pub(super) async fn try_connect(&self, heard: Option<Heard>) -> Result<Conn, Refusal> {
        if let Some(failed) =
            self.failed.lock().as_ref().filter(|failed| failed.until > self.options.env.now())
        {
            return Err(failed.refusal.clone());
        }
        match self.try_hosts(heard).await {
            Ok(conn) => {
                *self.failed.lock() = None;
                Ok(conn)
            }
            Err(refusal) => {
                metrics::counter!("profilestore_postgres_connect_failures_total").increment(1);
                let mut failed = self.failed.lock();
                let pause =
                    failed.as_ref().map_or(BACKOFF[0], |failed| (failed.pause * 2).min(BACKOFF[1]));
                let until = self.options.env.after(pause);
                *failed = Some(Failed { until, pause, refusal: refusal.clone() });
                Err(refusal)
            }
        }
    }

    async fn try_hosts(&self, heard: Option<Heard>) -> Result<Conn, Refusal> {
        let first = self.host.load(Relaxed);
        let mut last = None;
        for at in 0..self.options.hosts.len() {
            let at = (first + at) % self.options.hosts.len();
            let limit = self.options.connect_timeout;
            match tokio::time::timeout(limit, self.try_host(at, heard.clone())).await {
                Ok(Ok(conn)) => {
                    self.host.store(at, Relaxed);
                    return Ok(conn);
                }
                // A host that answers and refuses says more than one that does not answer.
                Ok(Err(refusal)) => last = Some(refusal),
                Err(_) => {
                    let reason = format!(
                        "the database does not answer: store=`{}` host=`{at}`",
                        self.options
                    );
                    last.get_or_insert(StoreError::Unavailable { reason }.into());
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            StoreError::Unavailable { reason: "no host is named".into() }.into()
        }))
    }

    async fn try_host(&self, at: usize, heard: Option<Heard>) -> Result<Conn, Refusal> {
        let config = &self.options.hosts[at];
        let failed = |err: tokio_postgres::Error| {
            let too_many = err.code() == Some(&SqlState::TOO_MANY_CONNECTIONS);
            Refusal { error: Trouble::from(err).cannot_connect(&self.options), too_many }
        };
        let warning = Arc::<Mutex<Option<String>>>::default();
        let ended = Arc::<Notify>::default();
        let client = match &self.tls {
            Some(tls) if config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                tokio::spawn(drive(connection, warning.clone(), heard, Ended(ended.clone())));
                client
            }
            _ => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                tokio::spawn(drive(connection, warning.clone(), heard, Ended(ended.clone())));
                client
            }
        };
        let patience = self.options.statement_timeout + GRACE;
        let conn = Conn { client, statements: Mutex::default(), warning, ended, patience };
        conn.set_up(&self.options).await.map_err(failed)?;
        Ok(conn)
    }
}

/// Tells that a connection ended, however that came.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Serves a connection until it ends.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Socket, T>,
    warning: Arc<Mutex<Option<String>>>,
    heard: Option<Heard>,
    _ended: Ended,
) {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => note(&notice, &warning),
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(heard) = &heard {
                    heard(notification);
                }
            }
            Ok(_) => {}
            Err(err) => {
                tracing::debug!(%err, "a connection to the database ended");
                return;
            }
        }
    }
}

fn note(notice: &DbError, warning: &Mutex<Option<String>>) {
    if matches!(notice.parsed_severity(), None | Some(Severity::Warning)) {
        tracing::warn!(code = notice.code().code(), "the database warns: {}", notice.message());
        *warning.lock() = Some(format!("{} ({})", notice.message(), notice.code().code()));
    }
}

impl Conn {
    async fn set_up(&self, options: &PostgresOptions) -> Result<(), tokio_postgres::Error> {
        let timeout = options.statement_timeout.as_millis();
        // A client that stops in the middle of a transaction, paused with its process say, must not
        // keep others from its profiles.
        let sql = format!(
            "SET search_path = {}; SET statement_timeout = {timeout}; SET idle_in_transaction_session_timeout = {timeout}; \
             SET default_transaction_isolation = 'read committed'; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
            options.schema
        );
        self.client.batch_execute(&sql).await?;
        if self.client.batch_execute(&PLAN_SETTINGS.join("; ")).await.is_err() {
            for setting in PLAN_SETTINGS {
                match self.client.batch_execute(setting).await {
                    Err(err) if err.as_db_error().is_none() => return Err(err),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Gives no statement up from now on: the server's own limit is off.
    pub(super) fn wait_as_long_as_it_takes(&mut self) {
        self.patience = Duration::MAX;
    }

    /// A statement, prepared once a connection.
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<Statement, Trouble> {
        if let Some(statement) = self.statements.lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.in_time(self.client.prepare(sql)).await?;
        self.statements.lock().insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &self,
        sql: &'static str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        let statement = self.prepare(sql).await?;
        self.in_time(self.client.query(&statement, params)).await
    }

    pub(crate) async fn query_step(&self, step: &Step<'_>) -> Result<Vec<Row>, Trouble> {
        self.query(step.sql, &step.params()).await
    }

    /// Sends statements together, in their order, and waits for all answers. None: not all came in
    /// time. `begin` and `end` are sent before and behind them.
    pub(super) async fn pipeline(
        &self,
        begin: Option<&str>,
        steps: &[Step<'_>],
        end: Option<&str>,
    ) -> Result<Option<Answers>, Trouble> {
        let mut prepared = Vec::with_capacity(steps.len());
        for step in steps {
            // Outside of what is timed as one, and before anything is sent: preparing waits for an
            // answer.
            prepared.push(self.prepare(step.sql).await?);
        }
        let word = async |sql: Option<&str>| match sql {
            Some(sql) => self.client.batch_execute(sql).await,
            None => Ok(()),
        };
        // Each is sent when it is polled first, and these poll in order.
        let statements = steps.iter().zip(&prepared).map(|(step, statement)| {
            let params = step.params();
            async move { self.client.query(statement, &params).await }.boxed()
        });
        let all = async { futures_util::join!(word(begin), join_all(statements), word(end)) };
        match tokio::time::timeout(self.patience, all).await {
            Ok((began, rows, ended)) => Ok(Some(Answers { began, rows, ended })),
            Err(_) => Ok(None),
        }
    }

    /// Runs a statement of one row as a transaction of its own, in one round trip. The server sends
    /// the row before it commits: an error without a row is the statement's, and one behind it the
    /// commit's.
    pub(super) async fn alone(&self, step: &Step<'_>) -> Alone {
        let statement = match self.prepare(step.sql).await {
            Ok(statement) => statement,
            Err(trouble) => return Alone::Not(trouble),
        };
        self.take_warning();
        let sent = async {
            let rows = self.client.query_raw(&statement, step.params()).await?;
            let mut rows = std::pin::pin!(rows);
            let Some(row) = rows.try_next().await? else { return Ok(None) };
            Ok(Some((row, rows.try_next().await.map(drop))))
        };
        match self.in_time(sent).await {
            Ok(None) => Alone::Nothing,
            Ok(Some((row, Ok(())))) => match self.take_warning() {
                None => Alone::Committed(row),
                Some(warning) => {
                    Alone::Unknown(format!("the database warned while committing: {warning}"))
                }
            },
            Ok(Some((_, Err(err)))) if refused_to_commit(&err) => Alone::Not(err.into()),
            Ok(Some((_, Err(err)))) => {
                Alone::Lost(format!("the connection was lost while committing: {err}"))
            }
            Err(Trouble::Silent) => Alone::Unknown("the database did not answer in time".into()),
            Err(Trouble::Postgres(err)) if is_transport(&err) => {
                Alone::Lost(format!("the connection was lost while writing: {err}"))
            }
            Err(trouble) => Alone::Not(trouble),
        }
    }

    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.in_time(self.client.batch_execute(sql)).await
    }

    /// Waits for the server as long as it may take, and a little longer.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Trouble::Silent),
        }
    }

    /// The last warning since this was last asked.
    pub(super) fn take_warning(&self) -> Option<String> {
        self.warning.lock().take()
    }

    /// Waits until the connection has ended. For one task only.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the longest of all each attempt to connect panicked. One of a month the server refused.
    #[test]
    fn a_statement_timeout_is_one_that_the_server_can_count() {
        let mut options: PostgresOptions = "postgres://me@localhost/game".parse().expect("a URL");
        options.statement_timeout = Duration::MAX;
        let limit = Dialer::new(options).options.statement_timeout + GRACE;
        assert!(i32::try_from(limit.as_millis()).is_ok(), "{limit:?}");
    }

    /// Only `off` was lifted. With the others a commit that was acknowledged could be lost with the
    /// primary, although a synchronous standby was there.
    #[tokio::test]
    async fn a_session_waits_for_the_standby_whatever_its_role_says() {
        let url = std::env::var("PROFILESTORE_TEST_POSTGRES").expect(
            "this test needs a PostgreSQL server: run it through ./test or scripts/servers.sh",
        );
        for (said, wanted) in [
            ("off", "on"),
            ("local", "on"),
            ("remote_write", "on"),
            ("on", "on"),
            ("remote_apply", "remote_apply"),
        ] {
            let mut options: PostgresOptions = url.parse().expect("a URL");
            for host in &mut options.hosts {
                host.options(format!("-c synchronous_commit={said}"));
            }
            let conn = Dialer::new(options).connect().await.expect("the server answers");
            let rows = conn.query("SHOW synchronous_commit", &[]).await.expect("a setting");
            assert_eq!(rows[0].get::<_, &str>(0), wanted, "{said}");
        }
    }
}
