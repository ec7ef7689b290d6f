//! The description of all resources, OpenAPI 3.1, made from the handlers.

use axum::http::StatusCode;
use profilestore::{audit::MAX_REASON_BYTES, key::MAX_NAME_CHARS};
use serde_json::{Map, Value, json};

use crate::http::{self, MAX_PAGE};

/// The description as JSON. `api/openapi.json` is the same, and a test compares them.
pub fn openapi() -> String {
    let (_, made) = http::router().split_for_parts();
    let mut api = serde_json::to_value(&made).unwrap_or_default();
    api["info"] = json!({
        "title": "profilestore",
        "version": "1",
        "description": "Player data that no two servers can write at once. Additions come without \
            a new version; unknown members of answers are to be ignored.",
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
    });
    api["security"] = json!([{ "key": [] }, { "cookie": [] }]);
    api["components"]["securitySchemes"] = json!({
        "key": { "type": "http", "scheme": "bearer", "description": "ps_ID_SECRET" },
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-profilestore-443",
            "description": "Of a log-in, with the port that the browser names. Without TLS, on \
                this machine alone, it is `profilestore-PORT`; behind a proxy it is \
                `__Host-profilestore`.",
        },
    });
    if let Some(paths) = api["paths"].as_object_mut() {
        in_another_scope(paths);
        with_bounds(paths);
        with_descriptions(paths);
    }
    let mut text = serde_json::to_string_pretty(&api).unwrap_or_default();
    text.push('\n');
    text
}

/// The JSON Schemas of the frames of `/v1/connect`. `api/frames.json` is the same, and a test
/// compares them.
pub fn frames() -> String {
    crate::ws::frames::schemas()
}

/// The same handlers serve other scopes, under names of their own and with one more parameter.
fn in_another_scope(paths: &mut Map<String, Value>) {
    let scoped = paths.iter_mut().filter(|(path, _)| path.contains("/scopes/{scope}"));
    for (_, methods) in scoped {
        for operation in methods.as_object_mut().into_iter().flat_map(Map::values_mut) {
            if let Some(id) = operation["operationId"].as_str() {
                operation["operationId"] = format!("{id}_in_scope").into();
            }
            let scope = json!({
                "name": "scope", "in": "path", "required": true, "schema": { "type": "string" },
            });
            if let Some(parameters) = operation["parameters"].as_array_mut() {
                parameters.insert(1, scope);
            }
        }
    }
}

/// Parameters of one name have the same bounds wherever they are.
fn with_bounds(paths: &mut Map<String, Value>) {
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for parameter in operations
        .filter_map(|operation| operation.get_mut("parameters")?.as_array_mut())
        .flat_map(|parameters| parameters.iter_mut())
    {
        let bounds = match parameter["name"].as_str().unwrap_or_default() {
            "store" | "scope" | "key" => json!({ "minLength": 1, "maxLength": MAX_NAME_CHARS }),
            "prefix" => json!({ "maxLength": MAX_NAME_CHARS }),
            "operation" => json!({ "format": "uuid" }),
            "page_size" => json!({ "minimum": 1, "maximum": MAX_PAGE }),
            "reason" => json!({ "maxLength": MAX_REASON_BYTES }),
            "If-Match" | "Idempotency-Key" => json!({ "minLength": 1 }),
            _ => continue,
        };
        let schema = parameter.get_mut("schema").and_then(Value::as_object_mut);
        if let (Some(schema), Value::Object(bounds)) = (schema, bounds) {
            schema.extend(bounds);
        }
    }
}

/// The standard asks for a description of each response.
fn with_descriptions(paths: &mut Map<String, Value>) {
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for (status, response) in operations
        .filter_map(|operation| operation.get_mut("responses")?.as_object_mut())
        .flat_map(|responses| responses.iter_mut())
    {
        let reason = status.parse::<StatusCode>().ok().and_then(|status| status.canonical_reason());
        if let Some(response) = response.as_object_mut().filter(|it| !it.contains_key("$ref")) {
            response.entry("description").or_insert_with(|| reason.unwrap_or("An error").into());
        }
    }
}
