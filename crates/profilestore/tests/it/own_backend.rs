//! The backend of `examples/own_backend.rs`, which is written against the public interface only,
//! passes the conformance suite.

use std::sync::Arc;

use profilestore::{data_store::conformance::Subject, env::ManualClock};

#[path = "../../examples/own_backend.rs"]
#[expect(dead_code, reason = "its program is not run here")]
mod example;

async fn subject() -> Subject {
    let clock = ManualClock::default();
    Subject::new(Arc::new(example::OwnStore::new(clock.env(1))), move |ms| clock.advance(ms))
}

mod conformance {
    use super::subject;

    profilestore::store_conformance!(subject);
}
