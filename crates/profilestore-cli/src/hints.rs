//! Which messenger carries the hints, and connecting it.

use std::{convert::Infallible, fmt, str::FromStr, sync::Arc};

use profilestore::{
    ErrorKind,
    messenger::{Messenger, NoMessenger},
};

#[cfg(not(feature = "nats"))]
use left_out::Nats;
#[cfg(feature = "nats")]
use present::Nats;

use crate::{
    app::App,
    operate::failure,
    output::{Failure, chain, note},
};

/// A messenger's address as it was given. Not checked while the command line is read: clap would
/// repeat it in its complaint, and it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl Address {
    /// The whole, secrets and all. For the environment of a process of ours, which others cannot
    /// read.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// The NATS servers that it names, not connected yet. Checks the address.
    pub(crate) fn nats(&self) -> Result<Nats, Failure> {
        Nats::at(self)
    }

    /// Connects, or says why not.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn Messenger>, Failure> {
        self.nats()?.connect().await.map_err(|error| Failure::Work(chain(&error)))
    }
}

#[cfg(feature = "nats")]
mod present {
    use std::sync::Arc;

    use profilestore::messenger::{Messenger, NatsMessenger, NatsOptions};

    use super::Address;
    use crate::output::Failure;

    /// NATS servers, and how they are reached.
    #[derive(Debug)]
    pub(crate) struct Nats(NatsOptions);

    impl Nats {
        pub(super) fn at(address: &Address) -> Result<Self, Failure> {
            address.0.parse().map(Self).map_err(|error: profilestore::Error| {
                Failure::Usage(format!(
                    "{error}; a messenger is named \
                    nats://[USER:PASSWORD@]HOST[:PORT][,HOST…][?tls=off]"
                ))
            })
        }

        pub(crate) async fn connect(self) -> profilestore::Result<Arc<dyn Messenger>> {
            Ok(Arc::new(NatsMessenger::connect(self.0).await?))
        }

        /// Does not wait for a server: the connection is made when one can be reached.
        pub(crate) async fn connect_in_background(
            self,
        ) -> profilestore::Result<Arc<dyn Messenger>> {
            Self(self.0.in_background()).connect().await
        }
    }
}

/// A program without the feature `nats` says how to get it.
#[cfg(not(feature = "nats"))]
mod left_out {
    use std::{convert::Infallible, sync::Arc};

    use profilestore::messenger::Messenger;

    use super::Address;
    use crate::output::Failure;

    /// There are none: [`Nats::at`] refuses every address.
    #[derive(Debug)]
    pub(crate) struct Nats(Infallible);

    impl Nats {
        pub(super) fn at(_: &Address) -> Result<Self, Failure> {
            Err(Failure::left_out("NATS", "nats"))
        }

        pub(crate) async fn connect(self) -> profilestore::Result<Arc<dyn Messenger>> {
            match self.0 {}
        }

        pub(crate) async fn connect_in_background(
            self,
        ) -> profilestore::Result<Arc<dyn Messenger>> {
            match self.0 {}
        }
    }
}

impl App {
    /// The messenger that was asked for, or else the store's own. If NATS cannot be reached, the
    /// command goes on without hints: the holder of a profile learns of it with its next renewal.
    pub(crate) async fn messenger(
        &self,
        own: impl Messenger,
    ) -> Result<Arc<dyn Messenger>, Failure> {
        let Some(address) = &self.messenger else { return Ok(Arc::new(own)) };
        match address.nats()?.connect().await {
            Ok(messenger) => Ok(messenger),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let error = chain(&error);
                note(format_args!(
                    "warning: going on without hints, so that game servers take up to 5 s longer \
                        to answer: {error}"
                ));
                Ok(Arc::new(NoMessenger))
            }
            Err(error) => Err(failure(error)),
        }
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_explained_without_its_secrets() {
        let address: Address = "amqp://me:hush@host".parse().unwrap();
        let Err(Failure::Usage(message)) = address.nats() else { panic!("it is wrong") };
        assert!(message.contains("nats://") && !message.contains("hush"), "{message}");
        assert!(!format!("{address:?}").contains("hush"));
    }
}
