//! What goes wrong between us and the server, and what it means to the caller.

use parking_lot::Mutex;
use tokio_postgres::{
    Error,
    error::{DbError, SqlState},
};

use super::PostgresOptions;
use crate::data_store::StoreError;

/// What goes wrong within a transaction.
#[derive(Debug)]
pub(crate) enum Trouble {
    Postgres(Error),
    /// No answer in time. The connection is not fit for use any more.
    Silent,
    Store(StoreError),
}

impl From<Error> for Trouble {
    fn from(err: Error) -> Self {
        Self::Postgres(err)
    }
}

impl From<StoreError> for Trouble {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

impl Trouble {
    /// What it means to the caller, given that nothing was applied.
    pub(crate) fn not_applied(self) -> StoreError {
        let err = match self {
            Self::Store(err) => return err,
            Self::Silent => return unavailable("the database does not answer".into()),
            Self::Postgres(err) => err,
        };
        let Some(db) = err.as_db_error() else {
            // Columns that cannot be read have a source; a lost connection is of our own making or
            // an I/O error.
            return unavailable(format!(
                "the connection to the database failed: {}",
                in_full(&err)
            ));
        };
        let (code, text) = (db.code().code(), shown(db));
        match (code, code.get(..2).unwrap_or_default()) {
            ("42P01" | "42703" | "3F000", _) => StoreError::Corrupt {
                reason: format!(
                    "the database lacks tables of the store; run `profilestore migrate`: {text}"
                ),
            },
            ("42501", _) => unavailable(format!(
                "the role lacks a right; grant it with `profilestore migrate --grant`: {text}"
            )),
            ("54000", _) | (_, "22") => {
                StoreError::Invalid { reason: format!("PostgreSQL cannot store a value: {text}") }
            }
            (_, "23" | "XX") => {
                StoreError::Corrupt { reason: format!("the database is damaged: {text}") }
            }
            _ => unavailable(format!("PostgreSQL failed: {text}")),
        }
    }

    /// What a failed connection means. Wrong passwords and names are told as such, never the
    /// password.
    pub(super) fn cannot_connect(self, options: &PostgresOptions) -> StoreError {
        let text = match &self {
            Self::Postgres(err) => err.as_db_error().map_or_else(|| in_full(err), shown),
            Self::Silent => "no answer".into(),
            Self::Store(err) => err.to_string(),
        };
        unavailable(format!("the database cannot be reached: {text}: store=`{options}`"))
    }

    /// True when the same transaction may well succeed if it is tried again: it met another one.
    pub(super) fn met_another(&self) -> bool {
        let Self::Postgres(err) = self else { return false };
        err.code().is_some_and(|code| {
            [
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::UNIQUE_VIOLATION,
                SqlState::LOCK_NOT_AVAILABLE,
            ]
            .contains(code)
        })
    }

    /// True when the connection failed, as opposed to a statement.
    pub(super) fn is_disconnected(&self) -> bool {
        match self {
            Self::Postgres(err) => err.as_db_error().is_none_or(|db| {
                // A server that is only read from any more has become a standby: another one is to
                // be looked for.
                (matches!(db.code().code().get(..2), Some("08" | "57"))
                    && db.code() != &SqlState::QUERY_CANCELED)
                    || db.code() == &SqlState::READ_ONLY_SQL_TRANSACTION
            }),
            Self::Silent => true,
            Self::Store(_) => false,
        }
    }

    /// True when a statement took longer than one may.
    pub(super) fn is_time_limit(&self) -> bool {
        matches!(self, Self::Postgres(err) if err.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// True when the engine does not know the statement at all.
    fn is_of_another_dialect(&self) -> bool {
        let Self::Postgres(err) = self else { return false };
        err.code().is_some_and(|code| {
            [SqlState::SYNTAX_ERROR, SqlState::UNDEFINED_FUNCTION, SqlState::FEATURE_NOT_SUPPORTED]
                .contains(code)
        })
    }

    /// True when the trouble is that of one commit's contents and not of the transaction as such.
    /// On a full disk that is so too: what needs no more room can be written, renewals above all.
    pub(super) fn concerns_one(&self) -> bool {
        match self {
            Self::Postgres(err) => {
                err.code().is_some_and(|code| {
                    matches!(code.code().get(..2), Some("22" | "23" | "54" | "XX"))
                        || code == &SqlState::DISK_FULL
                }) || is_odd_row(err)
            }
            Self::Silent => false,
            Self::Store(_) => true,
        }
    }
}

/// The statements that the engine does not know. It may know the others, so each counts by itself.
#[derive(Default)]
pub(super) struct UnknownStatements(Mutex<Vec<&'static str>>);

impl UnknownStatements {
    pub(super) fn has(&self, sql: &'static str) -> bool {
        self.0.lock().contains(&sql)
    }

    /// Takes in why a statement failed.
    pub(super) fn note(&self, sql: &'static str, trouble: &Trouble) {
        let mut unknown = self.0.lock();
        if trouble.is_of_another_dialect() && !unknown.contains(&sql) {
            unknown.push(sql);
        }
    }
}

/// True for an error of the `COMMIT` itself which says that nothing was applied.
pub(super) fn refused_to_commit(err: &Error) -> bool {
    let class = |code: &SqlState| code.code().get(..2).map(str::to_owned);
    err.code().and_then(class).is_some_and(|class| matches!(class.as_str(), "23" | "25" | "40"))
        && err.code() != Some(&SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN)
}

/// True when nothing tells what became of what was sent: it is no answer of the server, and no
/// parameter that could not be sent.
pub(super) fn is_transport(err: &Error) -> bool {
    err.as_db_error().is_none() && !is_odd_row(err)
}

/// True for a column that cannot be read or a parameter that cannot be written: our own mistake or
/// a damaged row.
fn is_odd_row(err: &Error) -> bool {
    let text = err.to_string();
    text.starts_with("error deserializing") || text.starts_with("error serializing")
}

fn shown(db: &DbError) -> String {
    // The detail of a constraint's violation quotes the row.
    format!("{} ({})", db.message(), db.code().code())
}

fn in_full(err: &Error) -> String {
    let mut text = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable { reason }
}
