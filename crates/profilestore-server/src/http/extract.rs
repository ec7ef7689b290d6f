//! What a request says: the names in its path, its parameters, its body, its conditions. What is
//! wrong with one is a [`Problem`] that says what and where.

use std::collections::BTreeMap;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use jiff::Timestamp;
use profilestore::{
    MessageId, ProfileKey, UserId,
    data_store::{Incarnation, KeyState},
    key::DEFAULT_SCOPE,
    operator::Expected,
    record::InvalidUser,
    storable::{DATA, DOCUMENT},
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    app::App,
    problem::{Problem, without_values},
    secret::hex,
};

/// The largest body of a request: data of 4 MiB, and what surrounds it.
pub(crate) const MAX_BODY: usize = (4 << 20) + (64 << 10);

/// The largest page.
pub(crate) const MAX_PAGE: usize = 500;

const DEFAULT_PAGE: usize = 100;

/// How old the identity of an operation may be when it begins, and how far ahead, in milliseconds.
const OLDEST_MS: i64 = 30 * 24 * 3600 * 1000;
const NEWEST_MS: i64 = 24 * 3600 * 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A profile by its path.
#[derive(Debug, Deserialize)]
struct ProfilePath {
    store: String,
    scope: Option<String>,
    key: String,
}

/// The profile that the path names.
pub(crate) struct Named(pub(crate) ProfileKey);

impl FromRequestParts<App> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let InPath(ProfilePath { store, scope, key }) =
            InPath::from_request_parts(parts, app).await?;
        let scope = scope.as_deref().unwrap_or(DEFAULT_SCOPE);
        let key = ProfileKey::new(&store, scope, &key);
        key.map(Self).map_err(|error| Problem::invalid(error.to_string()))
    }
}

/// What else the path names.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(error) => Err(Problem::invalid(format!("the path: {}", error.body_text()))),
        }
    }
}

/// The parameters of the query.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::invalid(format!("the query: {}", error.body_text()))),
        }
    }
}

/// Why a change is made, for the audit log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Reason {
    /// Why, for the audit log: at most 2,000 bytes.
    pub(crate) reason: Option<String>,
}

/// A body, and what it says it is.
pub(crate) type Content = ContentUpTo<MAX_BODY>;

/// A body that is read up to so many bytes and no further.
pub(crate) struct ContentUpTo<const MOST: usize> {
    pub(crate) bytes: Bytes,
    /// The media type, in small letters, without parameters.
    pub(crate) media: String,
}

impl<const MOST: usize> FromRequest<App> for ContentUpTo<MOST> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let media = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().split(';').next().unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        let said = parts.headers.get(header::CONTENT_LENGTH);
        let said = said.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if said.is_some_and(|bytes| bytes > MOST as u64) {
            return Err(too_large(MOST));
        }
        Ok(Self { bytes: read(body, MOST).await?, media })
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    to_bytes(body, most).await.map_err(|error| {
        let error = error.into_inner();
        match error.to_string().contains("length limit") {
            true => too_large(most),
            false => Problem::invalid("the body ended before its end"),
        }
    })
}

fn too_large(most: usize) -> Problem {
    let detail = format!("the body is larger than a request may be: limit=`{most}`");
    Problem::new("too-large", detail)
}

impl<const MOST: usize> ContentUpTo<MOST> {
    /// The body as one of some media types. Curl says `application/x-www-form-urlencoded` unless it
    /// is told otherwise, so a wrong type is told and not guessed.
    pub(crate) fn of(&self, types: &[&str]) -> Result<&str, Problem> {
        if !types.contains(&&*self.media) {
            let detail = format!(
                "the header `Content-Type` is one of {}: given=`{}`",
                types.join(", "),
                self.media
            );
            return Err(Problem::new("unsupported-media-type", detail));
        }
        std::str::from_utf8(&self.bytes)
            .map_err(|error| Problem::invalid(format!("the body is not UTF-8: {error}")))
    }

    /// The body as JSON of a known form.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let text = self.of(&["application/json"])?;
        serde_json::from_str(text)
            .map_err(|error| Problem::invalid(format!("the body is no such JSON: {error}")))
    }

    /// No body, or an object without members, as some clients send it. One that says more would be
    /// taken for nothing.
    pub(crate) fn nothing(&self) -> Result<(), Problem> {
        match self.bytes.trim_ascii() {
            b"" | b"{}" => Ok(()),
            _ => Err(Problem::invalid("this takes no body; what it takes stands in the query")),
        }
    }

    /// JSON of a known form that holds secrets: the error says nothing of what is in it.
    pub(crate) fn secrets<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let text = self.of(&["application/json"])?;
        serde_json::from_str(text).map_err(|error| {
            Problem::invalid(format!("the body is no such JSON: {}", without_values(&error)))
        })
    }

    /// The same of an object that has these members and no others. The others are named.
    pub(crate) fn members<'a, T: Deserialize<'a>>(&'a self, known: &[&str]) -> Result<T, Problem> {
        let text = self.of(&["application/json"])?;
        let Ok(members) = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) else {
            return self.json();
        };
        let unknown = members.into_keys().filter(|name| !known.contains(&&**name));
        let unknown: Vec<_> = unknown.take(20).collect();
        if !unknown.is_empty() {
            let detail = format!(
                "the body has members that are not known here: unknown=`{}` known=`{}`",
                unknown.join("`, `"),
                known.join("`, `")
            );
            return Err(Problem::invalid(detail));
        }
        self.json()
    }

    /// JSON of any form, if it can be stored.
    pub(crate) fn storable(&self, types: &[&str]) -> Result<&str, Problem> {
        let text = self.of(types)?;
        DATA.check_size(text.len())?;
        DOCUMENT.check_bytes(text.as_bytes())?;
        Ok(text)
    }
}

/// What the sender expects the profile to be. Fails with 428 when the request does not say.
pub(crate) fn expected(key: &ProfileKey, headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) if tag != "*" => parse_etag(key, tag).ok_or_else(|| {
            let detail = match tag.starts_with("W/") {
                true => {
                    "If-Match is a weak ETag, as a proxy makes of one when it compresses; send the \
                    `etag` of the body that was read"
                }
                false => "If-Match is no ETag of this profile; read the profile again",
            };
            Problem::new("changed", detail).about(key)
        }),
        _ => {
            let detail = "send If-Match with the ETag that was read, or If-None-Match: * to make a \
                profile that is not there";
            Err(Problem::new("precondition-required", detail))
        }
    }
}

/// Whether the sender says with `If-None-Match` that it has this already. A proxy that compresses
/// makes an ETag weak, which is no matter here.
pub(crate) fn has_it(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut known = lines.flat_map(|line| line.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The ETag of what a key holds.
pub(crate) fn etag(incarnation: Incarnation, state: &KeyState) -> String {
    format_etag(&state.key, incarnation, state.epoch, state.version)
}

pub(crate) fn etag_of(key: &ProfileKey, expected: Expected) -> Option<String> {
    match expected {
        Expected::Version { incarnation, epoch, version } => {
            Some(format_etag(key, incarnation, epoch, version))
        }
        _ => None,
    }
}

fn format_etag(key: &ProfileKey, incarnation: Incarnation, epoch: u64, version: u64) -> String {
    format!("\"{}.{epoch}.{version}.{}\"", incarnation.0.simple(), digest(key))
}

/// The start of a profile's digest, so that the ETag of one profile is none of another one's.
fn digest(key: &ProfileKey) -> String {
    hex(&Sha256::digest(key.to_string().as_bytes())[..8])
}

fn parse_etag(key: &ProfileKey, tag: &str) -> Option<Expected> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let mut parts = inner.split('.');
    let incarnation = Incarnation(Uuid::try_parse(parts.next()?).ok()?);
    let epoch = parts.next()?.parse().ok()?;
    let version = parts.next()?.parse().ok()?;
    let names_it = parts.next()? == digest(key) && parts.next().is_none();
    names_it.then_some(Expected::Version { incarnation, epoch, version })
}

/// The header `Idempotency-Key`, with or without the quotes that its draft has.
fn idempotency_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::to_str).transpose();
    let value = value.map_err(|_| {
        Problem::invalid("the header `Idempotency-Key` has characters that are not of ASCII")
    })?;
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| {
        Problem::invalid(
            "the header `Idempotency-Key` is missing; with it, a request that is sent again takes \
             effect once: a version 7 UUID that stays the same for each retry",
        )
    })?;
    Ok(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// The identity of an operation.
pub(crate) fn operation(headers: &HeaderMap) -> Result<Uuid, Problem> {
    let key = idempotency_key(headers)?;
    let id = Uuid::try_parse(key).ok().filter(|id| id.get_version_num() == 7);
    id.ok_or_else(|| {
        let detail =
            format!("the header `Idempotency-Key` is a version 7 UUID here: given=`{key}`");
        Problem::invalid(detail)
    })
}

/// Fails for an operation that begins now and whose identity has another time. Holders take an edit
/// as a message, whose identity must not be old; and the audit log is ordered by that time.
pub(crate) fn timely(operation: Uuid, now_ms: i64) -> Result<(), Problem> {
    let ms = i64::try_from(operation.as_u128() >> 80).unwrap_or_default();
    if (now_ms - OLDEST_MS..=now_ms + NEWEST_MS).contains(&ms) {
        return Ok(());
    }
    let detail = "the time in the idempotency key is more than 30 days ago, or a day ahead";
    Err(Problem::new("message-id-expired", detail))
}

/// The identity of a message: a version 7 UUID, or TIME:NAME with the time in Unix milliseconds.
pub(crate) fn message_id(headers: &HeaderMap) -> Result<MessageId, Problem> {
    let key = idempotency_key(headers)?;
    if let Ok(id) = Uuid::try_parse(key)
        && id.get_version_num() == 7
    {
        let ms = i64::try_from(id.as_u128() >> 80).unwrap_or_default();
        let id = MessageId::new(ms, &id.to_string());
        return id.ok_or_else(|| Problem::invalid("the idempotency key cannot name a message"));
    }
    key.parse().map_err(|why| {
        let detail = format!(
            "the header `Idempotency-Key` is a version 7 UUID, or TIME:NAME with the time in Unix \
             milliseconds: {why}: given=`{key}`"
        );
        Problem::invalid(detail)
    })
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// At most so many, 1 to 500; 100.
    pub(crate) page_size: Option<usize>,
    /// Go on where the page before ended: its `next_page_token`.
    pub(crate) page_token: Option<String>,
}

pub(crate) fn page_size(size: Option<usize>) -> Result<usize, Problem> {
    match size.unwrap_or(DEFAULT_PAGE) {
        size @ 1..=MAX_PAGE => Ok(size),
        size => Err(Problem::invalid(format!("page_size is 1 to {MAX_PAGE}: page_size=`{size}`"))),
    }
}

/// Where a list of keys goes on.
pub(crate) fn key_token(key: &ProfileKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_string())
}

/// Reads what [`key_token`] gave.
pub(crate) fn parse_key_token(token: Option<&str>) -> Result<Option<ProfileKey>, Problem> {
    let Some(token) = token else { return Ok(None) };
    let key = URL_SAFE_NO_PAD.decode(token).ok().and_then(|text| String::from_utf8(text).ok());
    let key = key.and_then(|text| text.parse().ok());
    key.map(Some).ok_or_else(|| {
        Problem::invalid("page_token is not what a page before had as `next_page_token`")
    })
}

/// A user: a number or a name.
pub(crate) fn user(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|wrong: InvalidUser| Problem::invalid(wrong.to_string()))
}

/// A time: Unix milliseconds, or RFC 3339.
pub(crate) fn moment(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse::<i64>().ok();
    let parsed = parsed.or_else(|| Some(text.parse::<Timestamp>().ok()?.as_millisecond()));
    parsed.map(Some).ok_or_else(|| {
        Problem::invalid(format!(
            "{name} is Unix milliseconds, or a time such as 2026-11-20T18:30:00Z: given=`{text}`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_as_it_was_written() {
        let incarnation = Incarnation(Uuid::from_u128(7));
        let key = ProfileKey::new("S", "global", "a").unwrap();
        let tag = format_etag(&key, incarnation, 3, 9);
        assert!(tag.starts_with("\"00000000000000000000000000000007.3.9."), "{tag}");
        let found = Some(Expected::Version { incarnation, epoch: 3, version: 9 });
        assert_eq!(parse_etag(&key, &tag), found);
        for wrong in ["", "\"\"", "W/\"1\"", "\"7.3\"", &tag[1..], &tag.replace(".9.", ".9.1.")] {
            assert_eq!(parse_etag(&key, wrong), None, "{wrong}");
        }
        let other = ProfileKey::new("S", "global", "b").unwrap();
        assert_eq!(parse_etag(&other, &tag), None, "of another profile");
    }

    /// Behind a proxy that compresses, no answer was 304, and no write said why it was refused.
    #[test]
    fn an_etag_that_a_proxy_made_weak_is_known_when_reading_and_explained_when_writing() {
        let key = ProfileKey::new("S", "global", "a").unwrap();
        let tag = format_etag(&key, Incarnation(Uuid::from_u128(7)), 3, 9);
        let given = |name: HeaderName, values: &[&str]| {
            let value = |value: &&str| HeaderValue::from_str(value).unwrap();
            values.iter().map(|it| (name.clone(), value(it))).collect::<HeaderMap>()
        };
        let known = |values: &[&str]| has_it(&given(header::IF_NONE_MATCH, values), &tag);
        let weak = format!("W/{tag}");
        assert!(known(&[&tag]) && known(&[&weak]) && known(&["*"]));
        assert!(known(&["\"x\"", &format!("\"y\", {weak}")]));
        assert!(!known(&[]) && !known(&["\"x\""]) && !known(&[&tag[1..]]));
        let refused = expected(&key, &given(header::IF_MATCH, &[&weak])).unwrap_err();
        assert!(refused.to_string().contains("weak ETag"), "{refused}");
        assert!(expected(&key, &given(header::IF_MATCH, &[&tag])).is_ok());
    }

    #[test]
    fn a_message_is_named_by_a_uuid_or_by_time_and_name() {
        let named = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, text.parse().unwrap());
            message_id(&headers).map(|id| id.to_string())
        };
        assert_eq!(named("1795000000000:order-1").unwrap(), "1795000000000:order-1");
        let uuid = "01a1ee38-7a00-7000-8000-000000000001";
        assert_eq!(named(&format!("\"{uuid}\"")).unwrap(), format!("1794998041088:{uuid}"));
        for wrong in ["order-1", "x:order", "4a1ee387-a000-4000-8000-000000000001"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        assert!(message_id(&HeaderMap::new()).is_err());
        // It was said to be missing.
        let mut headers = HeaderMap::new();
        let order = HeaderValue::from_bytes("1795000000000:é".as_bytes()).unwrap();
        headers.insert(IDEMPOTENCY_KEY, order);
        let refused = message_id(&headers).unwrap_err();
        assert!(refused.to_string().contains("not of ASCII"), "{refused}");
    }

    #[test]
    fn a_page_token_is_read_as_it_was_written() {
        let key = ProfileKey::new("a/b", "global", " x ").unwrap();
        assert_eq!(parse_key_token(Some(&key_token(&key))).unwrap(), Some(key));
        assert!(parse_key_token(Some("?")).is_err());
    }
}
