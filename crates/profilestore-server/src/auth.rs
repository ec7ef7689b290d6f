//! Who asks, and what they may do. Every handler that touches the store takes a [`Caller`].
//!
//! A program has a key. A member has the cookie of a log-in, which changes nothing until it is
//! armed.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use profilestore::{Attribution, ProfileKey, audit::MAX_AUTHOR_BYTES};

use crate::{
    access::{Login, Member, by_member},
    app::App,
    cookie::is_safe,
    keys::{KeyRecord, KeyRefusal, Scope, Unverified},
    problem::Problem,
};

/// A request's sender.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A program, by its key.
    Key(Arc<KeyRecord>),
    /// A member, by a log-in.
    Member(Visitor),
}

/// A member with a log-in, whether or not it is armed.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) member: Arc<Member>,
    pub(crate) login: Login,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Self::of(parts, app).await?;
        app.rates().count(caller.id())?;
        Ok(caller)
    }
}

/// A caller whose request is not counted, for what must be answered however much is asked.
pub(crate) struct Uncounted(pub(crate) Caller);

impl FromRequestParts<App> for Uncounted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Caller::of(parts, app).await.map(Self)
    }
}

impl Caller {
    async fn of(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return match app.keys().verify(bearer(&parts.headers)?).await {
                Ok(record) => Ok(Self::Key(record)),
                Err(Unverified::Refused(why)) => Err(refused(why)),
                Err(Unverified::Store(error)) => Err(error.into()),
            };
        }
        let visitor = Visitor::from_request_parts(parts, app).await?;
        if !is_safe(&parts.method) && !app.logins().is_armed(&visitor.login).await? {
            let detail = "a log-in changes nothing until it is armed, for 15 minutes: POST /v1/arm";
            return Err(Problem::new("read-only", detail));
        }
        Ok(Self::Member(visitor))
    }
}

/// The log-in alone: for what a member may do without arming it.
impl FromRequestParts<App> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let cookies = app.reached().cookies(&parts.headers);
        if cookies.is_empty() {
            return Err(missing());
        }
        for cookie in cookies {
            let Some(visitor) = visitor(app, cookie).await? else { continue };
            if !is_safe(&parts.method) {
                app.reached().check_origin(&parts.headers, true)?;
            }
            return Ok(visitor);
        }
        Err(Problem::new("unauthorized", "the log-in is over; log in again"))
    }
}

/// Whose cookie it is. None: nobody's, or the log-in is over.
async fn visitor(app: &App, cookie: &str) -> Result<Option<Visitor>, Problem> {
    let Some(login) = app.logins().verify(cookie).await? else { return Ok(None) };
    let Some(member) = app.members().find(&login.name).await? else { return Ok(None) };
    Ok(login.belongs_to(&member).then_some(Visitor { member, login }))
}

fn missing() -> Problem {
    let detail =
        "the request has no header `Authorization: Bearer ps_…`, and no cookie of a log-in";
    Problem::new("unauthorized", detail)
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim()) } else { Err(missing()) }
}

fn refused(why: KeyRefusal) -> Problem {
    let detail = match why {
        KeyRefusal::Revoked => "the key was revoked",
        KeyRefusal::Expired => "the key has expired",
        KeyRefusal::Unknown => "there is no such key",
    };
    Problem::new("unauthorized", detail)
}

impl Caller {
    /// Whether the caller may do this to this profile.
    pub(crate) fn may(&self, scope: Scope, key: &ProfileKey) -> Result<(), Problem> {
        self.has(scope)?;
        if key.is_reserved() {
            let detail = "the library keeps its own books there";
            return Err(Problem::new("forbidden", detail).about(key));
        }
        let reaches = match self {
            Self::Key(record) => record.reaches(key),
            Self::Member(visitor) => visitor.member.record.reaches(key),
        };
        if reaches {
            return Ok(());
        }
        let detail = format!("{} is narrowed to {}", self.kind(), self.narrowed_to());
        Err(Problem::new("forbidden", detail).about(key))
    }

    /// Whether the caller may do something that crosses stores.
    pub(crate) fn may_everywhere(&self, scope: Scope) -> Result<(), Problem> {
        self.has(scope)?;
        if !self.is_narrowed() {
            return Ok(());
        }
        let detail = format!(
            "this crosses stores, and {} is narrowed to {}",
            self.kind(),
            self.narrowed_to()
        );
        Err(Problem::new("forbidden", detail))
    }

    /// Whether the caller may do this somewhere.
    pub(crate) fn has(&self, scope: Scope) -> Result<(), Problem> {
        if self.has_any(&[scope]) {
            return Ok(());
        }
        let detail = match self {
            Self::Key(_) => format!("the key has no scope `{scope}`"),
            Self::Member(Visitor { member, .. }) => {
                format!("the role `{}` has no scope `{scope}`", member.record.role)
            }
        };
        Err(Problem::new("forbidden", detail).with("scope", scope.as_str()))
    }

    /// Whether the caller has one of these scopes.
    pub(crate) fn has_any(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| match self {
            Self::Key(record) => record.may(*scope),
            Self::Member(visitor) => visitor.member.record.may(*scope),
        })
    }

    /// Whether the caller's key or log-in still counts, for an answer that takes long.
    pub(crate) async fn is_still_valid(&self, app: &App) -> bool {
        match self {
            Self::Key(record) => !app.keys().is_refused(&record.id).await,
            Self::Member(Visitor { login, .. }) => {
                let is_there = app.logins().is_there(login).await.unwrap_or(false);
                let member = app.members().find(&login.name).await.ok().flatten();
                is_there && member.is_some_and(|member| login.belongs_to(&member))
            }
        }
    }

    /// All that the caller may do.
    pub(crate) fn scopes(&self) -> BTreeSet<Scope> {
        Scope::ALL.into_iter().filter(|scope| self.has_any(&[*scope])).collect()
    }

    /// The id of the key or of the log-in.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Key(record) => &record.id,
            Self::Member(visitor) => &visitor.login.id,
        }
    }

    /// The beginning of the keys of profiles that the caller is narrowed to.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self {
            Self::Key(record) => record.prefix.as_deref(),
            Self::Member(_) => None,
        }
    }

    /// The stores that the caller is narrowed to. None: all.
    pub(crate) fn stores(&self) -> Option<BTreeSet<String>> {
        match self {
            Self::Key(record) => record.store.clone().map(|store| BTreeSet::from([store])),
            Self::Member(visitor) => visitor.member.record.stores.clone(),
        }
    }

    fn is_narrowed(&self) -> bool {
        self.stores().is_some() || self.prefix().is_some()
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "the key",
            Self::Member(_) => "the member",
        }
    }

    fn narrowed_to(&self) -> String {
        let stores: Vec<_> = self.stores().into_iter().flatten().collect();
        let stores = stores.join("`, `");
        match self.prefix() {
            Some(prefix) => format!("keys of the store `{stores}` that begin with `{prefix}`"),
            None => format!("the store `{stores}`"),
        }
    }

    /// In whose name something is done: the key's name and its id, or the member's name.
    pub(crate) fn because(&self, reason: Option<&str>) -> Attribution {
        let by = match self {
            Self::Key(record) => Attribution::new(format!("{} (key {})", record.name, record.id)),
            Self::Member(visitor) => by_member(&visitor.member.record.name),
        };
        by.because(reason.unwrap_or_default())
    }

    /// The author of what the sessions of a game server write: the caller, and behind that the name
    /// that the game server gives itself, as far as there is room.
    pub(crate) fn author_for(&self, job: &str) -> String {
        let mut author = format!("{} for {job}", self.because(None).author);
        while author.len() > MAX_AUTHOR_BYTES {
            author.pop();
        }
        author
    }
}
