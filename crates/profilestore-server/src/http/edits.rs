//! Edits: changes of a profile that its holder makes, or this server where it has none.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use profilestore::{
    Edit, ErrorKind, ProfileKey,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{DataStoreExt as _, Returning},
    operator::{StandingEdit, WaitingEdit, standing_edits},
    storable::DOCUMENT,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    extract::{Content, InPath, Named, Params, Reason, operation, timely},
    views,
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// How long a request waits for the holder of a profile.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(waiting, make)).routes(routes!(outcome))
}

/// An edit that is yet to be made.
#[derive(Debug, Serialize, ToSchema)]
struct ComingEdit {
    /// Its operation: the Idempotency-Key, and its entry in the audit log.
    operation: String,
    /// Who asked for it.
    author: String,
    /// Why.
    reason: String,
    /// When it was handed to the holder, Unix milliseconds. Null for one that stands.
    sent_ms: Option<i64>,
    /// Its steps. Null: they cannot be read, they may be of a newer version.
    #[schema(value_type = Option<Vec<Object>>)]
    operations: Option<Box<RawValue>>,
}

/// The edits of a profile that are yet to be made.
#[derive(Debug, Serialize, ToSchema)]
struct ComingEdits {
    /// Those that the game server which holds the profile has yet to make, oldest first.
    waiting: Vec<ComingEdit>,
    /// Those that stand for new profiles of the store, and that this one gets when it begins. Empty
    /// for a profile that is there.
    standing: Vec<ComingEdit>,
}

/// The steps of an edit as it is stored.
fn steps_of(edit: &str) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Stored {
        ops: Box<RawValue>,
    }
    serde_json::from_str::<Stored>(edit).ok().map(|stored| stored.ops)
}

impl ComingEdit {
    fn waiting(edit: WaitingEdit) -> Self {
        Self {
            operation: edit.operation.to_string(),
            author: edit.by.author,
            reason: edit.by.reason,
            sent_ms: Some(edit.sent_ms),
            operations: edit.edit.and_then(|edit| steps_of(edit.get())),
        }
    }

    fn standing(edit: StandingEdit) -> Self {
        Self {
            operation: edit.operation.to_string(),
            author: edit.by.author,
            reason: edit.by.reason,
            sent_ms: None,
            operations: steps_of(&edit.edit.to_string()),
        }
    }
}

/// List the edits that wait
///
/// What operators asked for and the profile does not have yet.
#[utoipa::path(
    get,
    path = "/profiles/{key}/edits",
    operation_id = "list_waiting_edits",
    tag = "edits",
    params(("store" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, body = ComingEdits),
        AnyProblem,
    )
)]
async fn waiting(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let (_, state) = app.store().read_one(&key, Returning::INBOX).await?;
    let waiting = state.inbox.iter().flatten().filter_map(WaitingEdit::of);
    let standing = match state.exists() {
        true => Vec::new(),
        false => standing_edits(app.store(), Some(key.store())).await?,
    };
    let view = ComingEdits {
        waiting: waiting.map(ComingEdit::waiting).collect(),
        standing: standing
            .into_iter()
            .filter(|edit| edit.is_for(&key))
            .map(ComingEdit::standing)
            .collect(),
    };
    Ok(views::json(StatusCode::OK, &view))
}

/// The edit that a body describes.
pub(super) fn edit_of(content: &Content) -> Result<Edit, Problem> {
    let text = content.storable(&[JSON_PATCH, MERGE_PATCH])?;
    let edit = match &*content.media {
        MERGE_PATCH => Edit::new().merge(DOCUMENT.parse(text)?),
        _ => Edit::from_patch(text)?,
    };
    edit.check()?;
    Ok(edit)
}

/// Edit a profile
///
/// Applies a JSON Patch (RFC 6902) or a merge patch (RFC 7396), without ending a session: the game
/// server that holds the profile makes the edit and saves it. A patch may have the steps `set`,
/// `increase` and `restore` too, such as `[{"op":"increase","path":"/coins","by":5}]`; with
/// `"create":true` a number that is not there counts as 0. The same `Idempotency-Key` again makes
/// no second edit, and answers what became of the first. The key of an edit of many profiles is
/// refused.
#[utoipa::path(
    post,
    path = "/profiles/{key}/edits",
    operation_id = "edit_profile",
    tag = "edits",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("Idempotency-Key" = String, Header, description = "A version 7 UUID"),
        Reason,
    ),
    request_body(
        content(
            (serde_json::Value = "application/json-patch+json"),
            (serde_json::Value = "application/merge-patch+json"),
        ),
    ),
    responses(
        (status = 200, body = serde_json::Value, description = "Done: its entry in the audit log"),
        (status = 202, body = serde_json::Value, description = "The holder has not answered yet"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn make(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    caller.may(Scope::EditsSingle, &key)?;
    let operation = operation(&headers)?;
    let edit = edit_of(&content)?;
    app.bulk().check_unused(operation).await?;
    match booked(&app, operation, &key).await? {
        Some(entry) => same_edit(&entry, &edit)?,
        None => timely(operation, app.server().now_ms())?,
    }
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    match operator.edit_as(operation, &key, &edit, PATIENCE).await {
        Ok(entry) => {
            same_edit(&entry, &edit)?;
            if entry.details.is_empty() {
                // An erasure took the steps out of it, or it is of an edit of many profiles that
                // began meanwhile and left this one as it was.
                app.bulk().check_unused(operation).await?;
            }
            Ok(views::json(StatusCode::OK, &entry))
        }
        Err(error) if error.kind() == ErrorKind::Unknown => {
            let body = json!({ "operation": operation, "outcome": "pending" });
            let mut response = views::json(StatusCode::ACCEPTED, &body);
            let place = format!("edits/{operation}");
            if let Ok(place) = HeaderValue::from_str(&place) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

/// Fails when an operation was another edit. One of many profiles names no steps in the entry of a
/// profile. After an erasure an entry has no details at all, and nothing can be compared.
fn same_edit(entry: &AuditEntry, edit: &Edit) -> Result<(), Problem> {
    let is_same = match entry.details.get("edit") {
        Some(booked) => serde_json::to_value(edit).is_ok_and(|sent| sent == *booked),
        None => entry.details.is_empty(),
    };
    if entry.action == "edit" && is_same {
        return Ok(());
    }
    let detail = format!(
        "the idempotency key was used before for another edit: operation=`{}`",
        entry.operation
    );
    Err(Problem::new("idempotency-key-reused", detail))
}

/// What is booked about an operation on a profile.
pub(super) async fn booked(
    app: &App,
    operation: Uuid,
    key: &ProfileKey,
) -> Result<Option<AuditEntry>, Problem> {
    let query =
        AuditQuery { operation: Some(operation), key: Some(key.clone()), ..AuditQuery::default() };
    let page = audit_entries(app.store(), &query).await?;
    Ok(page.entries.into_iter().next())
}

#[derive(Debug, Deserialize)]
struct EditPath {
    operation: String,
}

/// What became of an edit
#[utoipa::path(
    get,
    path = "/profiles/{key}/edits/{operation}",
    operation_id = "read_edit",
    tag = "edits",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("operation" = String, Path, description = "Its Idempotency-Key"),
    ),
    responses(
        (status = 200, body = serde_json::Value, description = "Its entry in the audit log"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn outcome(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    InPath(EditPath { operation }): InPath<EditPath>,
) -> Result<Response, Problem> {
    caller.may(Scope::EditsSingle, &key)?;
    let wrong = || Problem::invalid(format!("an operation is a UUID: given=`{operation}`"));
    let operation = Uuid::try_parse(&operation).map_err(|_| wrong())?;
    let entry = booked(&app, operation, &key).await?.ok_or_else(|| {
        let detail = format!("there is no such edit: operation=`{operation}`");
        Problem::new("not-found", detail).about(&key)
    })?;
    let refused = matches!(entry.outcome, AuditOutcome::Refused { .. });
    let mut body = serde_json::to_value(&entry).unwrap_or(Value::Null);
    if let (true, Some(members)) = (refused, body.as_object_mut()) {
        members.insert("advice".to_owned(), "fix".into());
    }
    Ok(views::json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use profilestore::Attribution;

    use super::*;

    /// An edit of many profiles began between the look at the key and the edit of one, and made its
    /// own change. The caller was told that the edit of one was done.
    #[test]
    fn an_edit_of_one_is_not_answered_by_an_edit_of_many_under_its_key() {
        let edit = Edit::from_patch(r#"[{"op":"increase","path":"/coins","by":1000}]"#).unwrap();
        let key = ProfileKey::new("PlayerData", "global", "p").unwrap();
        let entry = || {
            let (keys, by) = (vec![key.clone()], Attribution::new("shop"));
            AuditEntry::new(Uuid::nil(), "edit", keys, by)
        };
        let own = entry().detail("edit", serde_json::to_value(&edit).unwrap());
        assert!(same_edit(&own.detail("version", 2), &edit).is_ok());
        assert!(same_edit(&entry().detail("version", 2), &edit).is_err());
        assert!(same_edit(&entry(), &edit).is_ok(), "the details were erased");
    }
}
