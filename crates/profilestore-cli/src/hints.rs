//! Which messenger carries the hints, and connecting it.

use std::{convert::Infallible, fmt, str::FromStr, sync::Arc};

use profilestore::{
    ErrorKind,
    messenger::{Messenger, NatsMessenger, NatsOptions, NoMessenger},
};

use crate::{
    args::App,
    operate::failure,
    output::{Failure, chain},
};

/// A messenger's address as it was given. Not checked while the command line is read: clap would repeat it in its complaint, and
/// it may hold a password.
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
    /// The whole, secrets and all. For the environment of a process of ours, which others cannot read.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    pub(crate) fn options(&self) -> Result<NatsOptions, Failure> {
        self.0.parse().map_err(|error: profilestore::Error| {
            Failure::Usage(format!("{error}; a messenger is named nats://[USER:PASSWORD@]HOST[:PORT][,HOST…][?tls=off]"))
        })
    }

    /// Connects, or says why not.
    pub(crate) async fn connect(&self) -> Result<NatsMessenger, Failure> {
        NatsMessenger::connect(self.options()?).await.map_err(|error| Failure::Work(chain(&error)))
    }
}

impl App {
    /// The messenger that was asked for, or else the store's own. If NATS cannot be reached, the
    /// command goes on without hints: the holder of a profile learns of it with its next renewal.
    pub(crate) async fn messenger(&self, own: impl Messenger) -> Result<Arc<dyn Messenger>, Failure> {
        let Some(address) = &self.messenger else { return Ok(Arc::new(own)) };
        match NatsMessenger::connect(address.options()?).await {
            Ok(messenger) => Ok(Arc::new(messenger)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let error = chain(&error);
                eprintln!("warning: going on without hints, so that game servers take up to 5 s longer to answer: {error}");
                Ok(Arc::new(NoMessenger))
            }
            Err(error) => Err(failure(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_explained_without_its_secrets() {
        let address: Address = "amqp://me:hush@host".parse().unwrap();
        let Err(Failure::Usage(message)) = address.options() else { panic!("it is wrong") };
        assert!(message.contains("nats://") && !message.contains("hush"), "{message}");
        assert!(!format!("{address:?}").contains("hush"));
    }
}
