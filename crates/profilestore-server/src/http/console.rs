//! The console: a page for operators, built from `console/` and embedded.
//!
//! The page has no rights of its own: it asks the public API, as any other program does. All of its
//! addresses are behind `#`, so it takes no path but `/` and those of its files. Files whose names
//! come from their contents never change.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// A file of the page, as it is and in gzip.
struct File {
    path: &'static str,
    media: &'static str,
    plain: &'static [u8],
    packed: &'static [u8],
}

static FILES: &[File] = &include!(concat!(env!("CARGO_MANIFEST_DIR"), "/console/files.rs"));

/// What the page may do in a browser: run its own scripts, ask this server, and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn router() -> OpenApiRouter<App> {
    FILES.iter().fold(OpenApiRouter::new(), |router, file| {
        router.route(file.path, get(async |headers: HeaderMap| served(file, &headers)))
    })
}

fn served(file: &'static File, asked: &HeaderMap) -> Response {
    let is_packed = takes_gzip(asked);
    let body = if is_packed { file.packed } else { file.plain };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.media));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let kept = match file.path {
        "/" => "no-cache",
        _ => "public, max-age=31536000, immutable",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    response
}

/// Whether `Accept-Encoding` names gzip, and not with the weight 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = accepted.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            takes_gzip(&headers)
        };
        for text in ["gzip", "br, GZIP", "gzip;q=0.5, identity", "deflate, gzip; q=1.0"] {
            assert!(takes(text), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "x-gzip", "identity, gzip;q=0.0"] {
            assert!(!takes(text), "{text}");
        }
    }
}
