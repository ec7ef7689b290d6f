//! The resources. Each file has one kind of them, with its routes at the top.
//!
//! Profiles are found at two paths, `/v1/stores/{store}/profiles/{key}` in the default scope and
//! `/v1/stores/{store}/scopes/{scope}/profiles/{key}` in another one.

use utoipa_axum::router::OpenApiRouter;

pub(crate) use extract::{MAX_PAGE, timely};

use crate::app::App;

mod audit;
mod bulk;
mod console;
mod edits;
mod events;
mod extract;
mod health;
mod history;
mod keys;
pub(crate) mod live;
mod logins;
mod members;
mod messages;
mod pages;
mod profiles;
mod search;
mod servers;
mod sessions;
mod status;
mod users;
mod views;

/// What belongs to one store and scope.
fn in_a_scope() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(profiles::router())
        .merge(edits::router())
        .merge(history::router())
        .merge(messages::router())
        .merge(sessions::router())
}

/// All of them, with their description.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .nest("/v1/stores/{store}", in_a_scope())
        .nest("/v1/stores/{store}/scopes/{scope}", in_a_scope())
        .merge(crate::ws::router())
        .merge(servers::router())
        .merge(audit::router())
        .merge(users::router())
        .merge(bulk::router())
        .merge(live::router())
        .merge(keys::router())
        .merge(logins::router())
        .merge(members::router())
        .merge(health::router())
        .merge(status::router())
        .merge(pages::router())
        .merge(console::router())
}
