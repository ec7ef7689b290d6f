//! The NATS messenger: the conformance suite on one server and on a cluster, logins and TLS, and
//! what breaks on the way.

use std::sync::Arc;

use profilestore::messenger::{NatsMessenger, NatsOptions, conformance::Subject};

mod broken;
mod logins;
mod server;

/// The address of servers that were started for the tests.
fn given(variable: &str) -> NatsOptions {
    let address = std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run ./test, or scripts/servers.sh \
            COMMAND, which start NATS servers"
        )
    });
    address.parse().unwrap()
}

async fn connect(options: NatsOptions) -> Arc<NatsMessenger> {
    Arc::new(NatsMessenger::connect(options).await.unwrap())
}

mod conformance {
    use super::*;

    async fn subject() -> Subject {
        let [near, far] = [(); 2].map(|()| connect(given("PROFILESTORE_TEST_NATS")));
        Subject::new(near.await, far.await)
    }

    profilestore::messenger_conformance!(subject);
}

mod conformance_cluster {
    use super::*;

    /// Two ends on any two of the servers, the same one included.
    async fn subject() -> Subject {
        let [near, far] = [(); 2].map(|()| connect(given("PROFILESTORE_TEST_NATS_CLUSTER")));
        Subject::new(near.await, far.await)
    }

    profilestore::messenger_conformance!(subject);
}
