//! Which NATS servers to use, and how to log in.
//!
//! Secrets (user names, passwords, tokens, keys) are taken out of the address at once. So no error,
//! log line or `Debug` output shows them.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// How many servers may be named, as a limit against mistakes.
const MAX_SERVERS: usize = 64;

/// The port of a NATS server that names none.
const PORT: u16 = 4222;

/// Which NATS servers, and how to talk to them. Made from an address:
///
/// ```text
/// nats://HOST[:PORT][,HOST[:PORT]…][?OPTION=VALUE[&OPTION=VALUE…]]
/// nats://USER:PASSWORD@HOST…      nats://TOKEN@HOST…      tls://HOST…
/// ```
///
/// | option | |
/// | --- | --- |
/// | `tls=off` | unencrypted also to other machines, see [`NatsOptions::without_tls`] |
/// | `tls=on` | encrypted also on this machine |
/// | `ca=FILE` | [`NatsOptions::root_certificates`] |
/// | `cert=FILE`, `key=FILE` | [`NatsOptions::client_certificate`] |
/// | `creds=FILE` | [`NatsOptions::credentials_file`] |
/// | `prefix=NAME` | [`NatsOptions::prefix`] |
///
/// Reserved characters in user name, password, token and values are written as `%XX`. `Display` and
/// `Debug` show no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsOptions {
    pub(super) servers: Vec<Server>,
    pub(super) login: Login,
    pub(super) tls: Tls,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) prefix: String,
    pub(super) connect_timeout: Duration,
    pub(super) wait_for_server: bool,
}

/// One server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// A name or an address; IPv6 ones in brackets.
    host: String,
    port: u16,
}

impl Server {
    /// On this machine, so that no other machine can listen.
    fn is_local(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How a client says who it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    None,
    Token(String),
    User(String, String),
    File(PathBuf),
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    /// Unless every server is on this machine.
    Default,
    On,
    Off,
}

impl NatsOptions {
    /// A user's name and password.
    #[must_use]
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.login = Login::User(user.into(), password.into());
        self
    }

    /// A token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.login = Login::Token(token.into());
        self
    }

    /// A credentials file, as NATS' own tools write it (a JWT and an nkey).
    #[must_use]
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.login = Login::File(path.into());
        self
    }

    /// Trusts the servers that these certificates (a PEM file) vouch for, and no others. By default
    /// those that the machine trusts.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// The certificate that this client shows, and its key (PEM files).
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Allows unencrypted connections to other machines. By default every connection is encrypted
    /// unless all servers named are on this one, in which case those that a cluster names by itself
    /// are left alone. A server that demands TLS gets it anyway.
    #[must_use]
    pub fn without_tls(mut self) -> Self {
        self.tls = Tls::Off;
        self
    }

    /// Encrypts connections on this machine, too.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = Tls::On;
        self
    }

    /// What the subjects begin with: `profilestore` by default. Two stores' game servers can share
    /// a NATS without it (a server's subject holds its identity, which is random); it is for
    /// permissions. A client needs to publish to and subscribe `PREFIX.hint.*`. Letters, digits,
    /// `-`, `_` and single dots between them, at most 64.
    pub fn prefix(mut self, prefix: &str) -> Result<Self> {
        let fits = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if prefix.len() > 64 || !prefix.split('.').all(fits) {
            return Err(invalid(
                "a prefix is letters, digits, `-`, `_` and single dots between them, at most 64",
            ));
        }
        self.prefix = prefix.to_owned();
        Ok(self)
    }

    /// How long one attempt to connect to one server may take. 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Does not wait for a server: [`NatsMessenger::connect`](super::NatsMessenger::connect)
    /// returns at once and the connection is made when one can be. For game servers, which must
    /// come up while NATS is down. A wrong password is then seen in the log only.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.wait_for_server = false;
        self
    }

    /// Whether an unencrypted connection is refused.
    pub(super) fn tls_required(&self) -> bool {
        match self.tls {
            Tls::Default => !self.all_local(),
            Tls::On => true,
            Tls::Off => false,
        }
    }

    /// Whether servers that the cluster names may be used. Not when they would be spoken to
    /// unencrypted by default.
    pub(super) fn follows_cluster(&self) -> bool {
        self.tls_required() || self.tls == Tls::Off
    }

    fn all_local(&self) -> bool {
        self.servers.iter().all(Server::is_local)
    }
}

impl FromStr for NatsOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tls, rest) = match text.split_once("://") {
            Some(("nats", rest)) => (Tls::Default, rest),
            Some(("tls", rest)) => (Tls::On, rest),
            _ => return Err(invalid("an address of NATS servers begins with nats:// or tls://")),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let login = match login.map(|login| {
            login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)))
        }) {
            None => Login::None,
            Some((user, Some(password))) => Login::User(decoded(user)?, decoded(password)?),
            Some((token, None)) => Login::Token(decoded(token)?),
        };
        let servers =
            hosts.trim_end_matches('/').split(',').map(server).collect::<Result<Vec<_>>>()?;
        if servers.len() > MAX_SERVERS {
            return Err(invalid("an address names 64 NATS servers at most"));
        }
        let (connect_timeout, prefix) = (Duration::from_secs(5), "profilestore".to_owned());
        let (root_certificates, client_certificate) = (None, None);
        let options = Self {
            servers,
            login,
            tls,
            root_certificates,
            client_certificate,
            prefix,
            connect_timeout,
            wait_for_server: true,
        };
        options.with_query(query)
    }
}

impl NatsOptions {
    fn with_query(mut self, query: &str) -> Result<Self> {
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match (name, &*value) {
                ("tls", "on") => self.tls = Tls::On,
                ("tls", "off") => self.tls = Tls::Off,
                ("prefix", _) => self = self.prefix(&value)?,
                ("ca", path) if !path.is_empty() => self.root_certificates = Some(path.into()),
                ("creds", path) if !path.is_empty() => self.login = Login::File(path.into()),
                ("cert", path) if !path.is_empty() => certificate = Some(PathBuf::from(path)),
                ("key", path) if !path.is_empty() => key = Some(PathBuf::from(path)),
                // Not repeated: it may be the rest of a password in which a question mark was not
                // written as %3F.
                _ => {
                    return Err(invalid(
                        "the options of a NATS address are tls=on, tls=off, ca, \
                    cert, key, creds and prefix",
                    ));
                }
            }
        }
        match (certificate, key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => self.client_certificate = Some((certificate, key)),
            _ => {
                return Err(invalid(
                    "a client's certificate and its key belong together: cert and key",
                ));
            }
        }
        Ok(self)
    }
}

fn server(text: &str) -> Result<Server> {
    let wrong = || invalid("an address of NATS servers is nats://HOST[:PORT][,HOST[:PORT]…]");
    let bracket = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[bracket..].find(':') {
        Some(at) => (&text[..bracket + at], text[bracket + at + 1..].parse().map_err(|_| wrong())?),
        None => (text, PORT),
    };
    let named =
        |host: &str| host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let numbered = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .map(str::parse::<std::net::Ipv6Addr>);
    if host.is_empty()
        || port == 0
        || !(named(host) || numbered.is_some_and(|parsed| parsed.is_ok()))
    {
        return Err(wrong());
    }
    Ok(Server { host: host.to_owned(), port })
}

fn decoded(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| {
        invalid("an address of NATS servers is UTF-8 with %XX for reserved characters")
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// The servers, without what is secret.
impl fmt::Display for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nats://")?;
        for (n, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = match self.login {
            Login::None => "none",
            Login::Token(_) => "a token",
            Login::User(..) => "a user and a password",
            Login::File(_) => "a credentials file",
        };
        f.debug_struct("NatsOptions")
            .field("servers", &format_args!("{self}"))
            .field("login", &login)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> NatsOptions {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_name_servers_logins_and_options() {
        assert_eq!(options("nats://a").to_string(), "nats://a:4222");
        assert_eq!(
            options("nats://a:1,b,[::1]:3,127.0.0.1:4/").to_string(),
            "nats://a:1,b:4222,[::1]:3,127.0.0.1:4"
        );
        assert!(options("nats://u%40x:p%3aw@h").login == Login::User("u@x".into(), "p:w".into()));
        assert!(options("nats://t0ken@h").login == Login::Token("t0ken".into()));
        let all = options("tls://h?ca=/ca.pem&cert=c&key=k&creds=/a%26b&prefix=game-1.eu");
        assert!(all.login == Login::File("/a&b".into()));
        assert_eq!(all.client_certificate, Some(("c".into(), "k".into())));
        assert_eq!((all.root_certificates, &*all.prefix), (Some("/ca.pem".into()), "game-1.eu"));
    }

    #[test]
    fn other_machines_are_spoken_to_in_secret_unless_that_is_switched_off() {
        for (address, required, follows) in [
            ("nats://localhost", false, false),
            ("nats://127.0.0.1,[::1]:4223", false, false),
            ("tls://localhost", true, true),
            ("nats://localhost?tls=on", true, true),
            ("nats://10.0.0.1", true, true),
            ("nats://localhost,nats.example", true, true),
            ("nats://localhost.example", true, true),
            ("nats://nats.example?tls=off", false, true),
        ] {
            let options = options(address);
            assert_eq!(
                (options.tls_required(), options.follows_cluster()),
                (required, follows),
                "{address}"
            );
        }
    }

    #[test]
    fn a_program_switches_tls_on_and_off_as_an_address_does() {
        let here = options("nats://localhost");
        assert!(!here.tls_required() && here.with_tls().tls_required());
        let elsewhere = options("nats://nats.example");
        assert!(elsewhere.tls_required() && !elsewhere.without_tls().tls_required());
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        for wrong in [
            "localhost:4222",
            "http://h",
            "nats://",
            "nats://h:0",
            "nats://h:99999",
            "nats://h:port",
            "nats://a,,b",
            "nats://a b",
            "nats://u:hush@h?tls=maybe",
            "nats://u:hush@h?hush=1",
            "nats://u:hush@h?cert=c",
            "nats://u:hush@",
            "nats://u:hush@h/x",
            "nats://u:hush@h?prefix=a..b",
            "nats://u:hush@h?prefix=a.>",
            "nats://u:hush@[::1",
            "nats://u:hush@[x]",
            "nats://hush%ff@h",
            "nats://u:1?hush@h",
        ] {
            let error = wrong.parse::<NatsOptions>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hush"), "{wrong}: {said}");
        }
        let options = options("nats://me:hush@h?ca=x");
        assert!(!format!("{options} {options:?}").contains("hush"));
        assert!(!format!("{options:?}").contains("me"), "{options:?}");
    }
}
