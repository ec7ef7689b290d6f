//! Streams of events (SSE): one a second, until there is nothing more to tell, the caller's key or
//! log-in is over, or the process stops. A browser asks again by itself.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::{HeaderValue, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Serialize;

use crate::{app::App, auth::Caller};

/// How often something is told.
const EVERY: Duration = Duration::from_secs(1);

/// What is told next, and whether it is the last of it.
pub(super) struct Told<T> {
    pub(super) value: T,
    pub(super) is_last: bool,
}

/// Tells what `next` gives, at once and then every second. None ends it.
pub(super) fn every_second<T, F, N>(app: App, caller: Caller, next: N) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Option<Told<T>>> + Send + 'static,
    N: Fn(App) -> F + Send + 'static,
{
    let begin = (app, caller, next, Some(tokio::time::Instant::now()));
    let events = stream::unfold(begin, |(app, caller, next, at)| async move {
        tokio::time::sleep_until(at?).await;
        if app.hub().leaves() || !caller.is_still_valid(&app).await {
            return None;
        }
        let Told { value, is_last } = next(app.clone()).await?;
        let event = Event::default().data(serde_json::to_string(&value).ok()?);
        let at = (!is_last).then(|| tokio::time::Instant::now() + EVERY);
        Some((Ok::<_, Infallible>(event), (app, caller, next, at)))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy is not to gather them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
