//! Pages for people: what each error means, what there is to ask for. Plain HTML, complete in
//! itself: nothing is loaded from elsewhere, and no script runs.

use std::fmt::Write as _;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::extract::InPath;
use crate::{
    app::App,
    openapi::openapi,
    problem::{AnyProblem, Problem, Row, TABLE, find},
};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:14px/1.5 ui-monospace,monospace}\
pre{overflow-x:auto}\
table{border-collapse:collapse}\
td,th{text-align:left;vertical-align:top;padding:.25rem 1rem .25rem 0}\
h2{margin-top:2.5rem}";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(description))
        .routes(routes!(docs))
        .routes(routes!(errors))
        .routes(routes!(error))
}

fn page(title: &str, body: &str) -> Response {
    let title = escaped(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n{body}</html>\n"
    );
    let mut response = html.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    );
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The same, with what stands between backticks as code.
fn prose(text: &str) -> String {
    let mut html = String::new();
    for (at, part) in escaped(text).split('`').enumerate() {
        if at % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(part);
        }
    }
    html.replace("\n\n", "</p><p>")
}

/// This description, as OpenAPI 3.1
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "pages",
    security(),
    responses((status = 200, body = serde_json::Value))
)]
async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

/// What there is to ask for, for people
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "pages",
    security(),
    responses((status = 200, body = String, content_type = "text/html"))
)]
async fn docs() -> Response {
    let api: Value = serde_json::from_str(&openapi()).unwrap_or_default();
    let mut body = String::from(
        "<p>Requests have the header <code>Authorization: Bearer ps_…</code>, or the cookie of a \
         log-in; those of the pages and those that log in need neither. Errors are described \
         <a href=\"/errors\">here</a>. \
         <a href=\"/openapi.json\">OpenAPI 3.1</a> for programs.</p>\n",
    );
    let empty = serde_json::Map::new();
    for (path, methods) in api["paths"].as_object().unwrap_or(&empty) {
        // The same resources in another scope.
        if path.contains("/scopes/") {
            continue;
        }
        for (method, operation) in methods.as_object().unwrap_or(&empty) {
            let method = method.to_uppercase();
            let text = |name: &str| operation[name].as_str().unwrap_or_default();
            let _ = write!(
                body,
                "<h2 id=\"{}\">{}</h2>\n<p><code>{method} {}</code></p>\n",
                escaped(text("operationId")),
                escaped(text("summary")),
                escaped(path),
            );
            if !text("description").is_empty() {
                let _ = writeln!(body, "<p>{}</p>", prose(text("description")));
            }
            parameters(&mut body, operation);
        }
    }
    page("profilestore: HTTP", &body)
}

fn parameters(body: &mut String, operation: &Value) {
    let Some(parameters) = operation["parameters"].as_array() else { return };
    body.push_str("<table>\n");
    for parameter in parameters {
        let text = |name: &str| parameter[name].as_str().unwrap_or_default();
        let _ = writeln!(
            body,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escaped(text("name")),
            escaped(text("in")),
            prose(text("description")),
        );
    }
    body.push_str("</table>\n");
}

/// What each error means, for people
#[utoipa::path(
    get,
    path = "/errors",
    operation_id = "errors",
    tag = "pages",
    security(),
    responses((status = 200, body = String, content_type = "text/html"))
)]
async fn errors() -> Response {
    let mut body = String::from("<table>\n");
    for Row { name, status, advice, title, .. } in TABLE {
        let _ = writeln!(
            body,
            "<tr><td><a href=\"/errors/{name}\"><code>{name}</code></a></td><td>{status}</td>\
             <td>{advice}</td><td>{}</td></tr>",
            prose(title)
        );
    }
    body.push_str("</table>\n");
    page("Errors", &body)
}

#[derive(Debug, Deserialize)]
struct ErrorPath {
    kind: String,
}

/// What one error means, for people
#[utoipa::path(
    get,
    path = "/errors/{kind}",
    operation_id = "error",
    tag = "pages",
    security(),
    params(("kind" = String, Path, description = "The end of an error's `type`")),
    responses((status = 200, body = String, content_type = "text/html"), AnyProblem)
)]
async fn error(InPath(ErrorPath { kind }): InPath<ErrorPath>) -> Result<Response, Problem> {
    let none =
        || Problem::new("no-such-resource", format!("there is no such error: kind=`{kind}`"));
    let Row { name, status, advice, title, remedy } = find(&kind).ok_or_else(none)?;
    let what = match *advice {
        "retry" => "try the same request again later; this one did nothing",
        "retry-as" => "it may have taken effect; send the same request again, with the same key",
        "leave" => "the session is over: let the player go",
        "ignore" => "nothing is wrong",
        _ => "the request or the data is at fault; trying again will not help",
    };
    let body = format!(
        "<p>{}</p>\n<p><b>What to do.</b> {}</p>\n<table>\n\
         <tr><td>Status</td><td>{status}</td></tr>\n\
         <tr><td>Advice</td><td><code>{advice}</code>: {what}</td></tr>\n</table>\n\
         <p><a href=\"/errors\">All errors</a></p>\n",
        prose(title),
        prose(remedy)
    );
    Ok(page(name, &body))
}
