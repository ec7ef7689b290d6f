//! What several commands are given: a profile, in whose name, a name, a number.

use std::convert::Infallible;

use clap::Args;
use profilestore::{
    Attribution, MessageId, ProfileKey,
    audit::{MAX_AUTHOR_BYTES, MAX_REASON_BYTES},
    key::unescaped,
};

use crate::output::Failure;

/// Which profile a command is about.
#[derive(Debug, Args)]
pub(crate) struct KeyArg {
    /// STORE/KEY, or STORE/SCOPE/KEY, where KEY may hold slashes
    #[arg(value_name = "KEY")]
    key: String,
    /// The scope; KEY is then STORE/KEY, and may hold further slashes
    #[arg(long, value_parser = plain_name)]
    scope: Option<String>,
}

impl KeyArg {
    pub(crate) fn parse(&self) -> Result<ProfileKey, Failure> {
        profile_key(&self.key, self.scope.as_deref())
    }
}

/// In whose name a change is made, and why.
#[derive(Debug, Args)]
pub(crate) struct ByArgs {
    /// In whose name, for the history and the audit log; the operating system's user by default
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

impl ByArgs {
    pub(crate) fn attribution(&self) -> Result<Attribution, Failure> {
        attribution(self.author.clone(), &self.reason)
    }
}

/// In this name, or that of the operating system's user.
pub(crate) fn attribution(author: Option<String>, reason: &str) -> Result<Attribution, Failure> {
    let author = match author {
        Some(author) => author,
        None => whoami::username().map_err(|error| {
            Failure::Usage(format!(
                "the operating system does not say who you are, say --author: {error}"
            ))
        })?,
    };
    let limits =
        [("author", author.len(), MAX_AUTHOR_BYTES), ("reason", reason.len(), MAX_REASON_BYTES)];
    if let Some((what, bytes, limit)) = limits.into_iter().find(|(_, bytes, limit)| bytes > limit) {
        return Err(Failure::Usage(format!(
            "the {what} is too long: bytes=`{bytes}` limit=`{limit}`"
        )));
    }
    if author.is_empty() {
        return Err(Failure::Usage("the author is empty".into()));
    }
    Ok(Attribution::new(author).because(reason))
}

/// A name as the program shows it, such as `a%0Ab`, or as it is.
pub(crate) fn plain_name(text: &str) -> Result<String, Infallible> {
    Ok(unescaped(text))
}

/// How many of a list are wanted. None of it is no list.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a whole number from 1".to_owned())
}

/// A message's identity as the program shows it, or as it is.
pub(crate) fn message_id(text: &str) -> Result<MessageId, String> {
    unescaped(text).parse().map_err(str::to_owned)
}

/// A profile by its name on the command line.
pub(crate) fn profile_key(name: &str, scope: Option<&str>) -> Result<ProfileKey, Failure> {
    let (store, rest) = name.split_once('/').ok_or_else(|| {
        Failure::Usage(format!("a profile is named STORE/KEY or STORE/SCOPE/KEY: given=`{name}`"))
    })?;
    let key = match scope {
        Some(scope) => ProfileKey::new(&unescaped(store), scope, &unescaped(rest)),
        None => name.parse(),
    };
    key.map_err(|e| Failure::Usage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_named_by_two_or_three_parts() {
        let parsed = |key: &str, scope: Option<&str>| {
            let key = KeyArg { key: key.into(), scope: scope.map(Into::into) }.parse();
            key.map(|key| [key.store(), key.scope(), key.key()].map(str::to_owned).join("|"))
        };
        assert_eq!(parsed("PlayerData/7", None).unwrap(), "PlayerData|global|7");
        assert_eq!(parsed("PlayerData/S1/7", None).unwrap(), "PlayerData|S1|7");
        assert_eq!(parsed("PlayerData/S1/7/8", None).unwrap(), "PlayerData|S1|7/8");
        assert_eq!(parsed("PlayerData/7/8", Some("S1")).unwrap(), "PlayerData|S1|7/8");
        assert_eq!(parsed("PlayerData/global/7/8", None).unwrap(), "PlayerData|global|7/8");
        assert_eq!(parsed("A%2FB/7", None).unwrap(), "A/B|global|7");
        for (key, scope) in
            [("7", None), ("S/", None), ("/7", None), ("S//7", None), ("S/7", Some(""))]
        {
            assert!(matches!(parsed(key, scope), Err(Failure::Usage(_))), "{key}");
        }
    }
}
