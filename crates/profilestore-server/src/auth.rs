//! Who asks, and what the key allows. Every handler that touches the store takes a [`Caller`].

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use profilestore::{Attribution, ProfileKey};

use crate::{
    app::App,
    keys::{KeyRecord, KeyRefusal, Scope, Unverified},
    problem::Problem,
};

/// A request's sender, by its key.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<KeyRecord>);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = bearer(&parts.headers)?;
        match app.keys().verify(key).await {
            Ok(record) => Ok(Self(record)),
            Err(Unverified::Refused(why)) => Err(refused(why)),
            Err(Unverified::Store(error)) => Err(error.into()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        let detail = "the request has no header `Authorization: Bearer ps_…`";
        Problem::new("unauthorized", detail)
    };
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
    /// Whether the key may be used for this on this profile.
    pub(crate) fn may(&self, scope: Scope, key: &ProfileKey) -> Result<(), Problem> {
        self.has(scope)?;
        if key.is_reserved() {
            let detail = "the library keeps its own books there";
            return Err(Problem::new("forbidden", detail).about(key));
        }
        if self.0.reaches(key) {
            return Ok(());
        }
        let detail = format!("the key is narrowed to {}", self.narrowed_to());
        Err(Problem::new("forbidden", detail).about(key))
    }

    /// Whether the key may be used for something that crosses stores.
    pub(crate) fn may_everywhere(&self, scope: Scope) -> Result<(), Problem> {
        self.has(scope)?;
        if !self.0.is_narrowed() {
            return Ok(());
        }
        let detail =
            format!("this crosses stores, and the key is narrowed to {}", self.narrowed_to());
        Err(Problem::new("forbidden", detail))
    }

    /// Whether the key may be used for this somewhere.
    pub(crate) fn has(&self, scope: Scope) -> Result<(), Problem> {
        if self.0.may(scope) {
            return Ok(());
        }
        let detail = format!("the key has no scope `{scope}`");
        Err(Problem::new("forbidden", detail).with("scope", scope.as_str()))
    }

    fn narrowed_to(&self) -> String {
        let store = self.0.store.as_deref().unwrap_or_default();
        match &self.0.prefix {
            Some(prefix) => format!("keys of the store `{store}` that begin with `{prefix}`"),
            None => format!("the store `{store}`"),
        }
    }

    /// In whose name something is done: the key's name and its id.
    pub(crate) fn because(&self, reason: Option<&str>) -> Attribution {
        let author = format!("{} (key {})", self.0.name, self.0.id);
        Attribution::new(author).because(reason.unwrap_or_default())
    }
}
