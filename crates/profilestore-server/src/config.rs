//! Where and how the server listens: one table, read from a file (TOML), the environment and the
//! command line.
//!
//! What the command line says counts first, then the environment, then the file, then the default.
//! All that is wrong is said at once.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use axum::http::uri::Authority;
use serde::Deserialize;

use crate::tls::TlsFiles;

/// Where `profilestore serve` listens when nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7400";

/// How many connections are open at once when nothing else is said.
pub const DEFAULT_CONNECTIONS: usize = 20_000;

/// How long one request may take when nothing else is said, in seconds.
pub const DEFAULT_REQUEST_SECONDS: u64 = 60;

/// How long a stopping server waits for requests under way when nothing else is said, in seconds.
pub const DEFAULT_STOP_SECONDS: u64 = 30;

/// How many requests a second a key may send when nothing else is said.
pub const DEFAULT_REQUESTS: u64 = 1000;

/// One setting: its name in the file, in the environment, on the command line, its default, and
/// what it means. `docs/server.md` shows this table, and a test compares them.
pub type Setting = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Every setting.
pub const SETTINGS: [Setting; 12] = [
    (
        "store",
        "PROFILESTORE_STORE",
        "--store",
        "sqlite:./profiles.db",
        "the store; a SQLite file that is not there is made",
    ),
    (
        "messenger",
        "PROFILESTORE_MESSENGER",
        "--messenger",
        "what belongs to the store",
        "what carries hints between servers",
    ),
    ("listen", "PROFILESTORE_LISTEN", "--listen", DEFAULT_LISTEN, "address and port"),
    (
        "tls_certificate",
        "PROFILESTORE_TLS_CERTIFICATE",
        "--tls-certificate",
        "none",
        "a PEM file with the certificate and those that it rests on",
    ),
    ("tls_key", "PROFILESTORE_TLS_KEY", "--tls-key", "none", "a PEM file with its private key"),
    (
        "trust_proxy",
        "PROFILESTORE_TRUST_PROXY",
        "--trust-proxy",
        "false",
        "a proxy in front of the server does TLS, and nothing else reaches the server",
    ),
    ("job", "PROFILESTORE_JOB", "--job", "serve-PROCESS", "the name of this process, for people"),
    (
        "max_connections",
        "PROFILESTORE_MAX_CONNECTIONS",
        "--max-connections",
        "20000",
        "more wait until one is closed",
    ),
    (
        "request_seconds",
        "PROFILESTORE_REQUEST_SECONDS",
        "--request-seconds",
        "60",
        "the longest that one request takes",
    ),
    (
        "stop_seconds",
        "PROFILESTORE_STOP_SECONDS",
        "--stop-seconds",
        "30",
        "how long a stopping server waits for requests under way",
    ),
    (
        "requests_per_second",
        "PROFILESTORE_REQUESTS_PER_SECOND",
        "--requests-per-second",
        "1000",
        "how many requests a second a key, or a log-in, may send to this process",
    ),
    (
        "public_url",
        "PROFILESTORE_PUBLIC_URL",
        "--public-url",
        "where it listens",
        "where people and programs reach the server, such as https://profiles.example.com",
    ),
];

/// What one source says. What it leaves out is None.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The store, as the command line names it. Not for this library: the program opens it.
    pub store: Option<String>,
    /// The messenger, likewise.
    pub messenger: Option<String>,
    /// Address and port.
    pub listen: Option<String>,
    /// A PEM file with the certificate and those that it rests on.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with its private key.
    pub tls_key: Option<PathBuf>,
    /// A proxy in front of the server does TLS.
    pub trust_proxy: Option<bool>,
    /// The name of this process.
    pub job: Option<String>,
    /// How many connections are open at once.
    pub max_connections: Option<usize>,
    /// The longest that one request takes, in seconds.
    pub request_seconds: Option<u64>,
    /// How long a stopping server waits, in seconds.
    pub stop_seconds: Option<u64>,
    /// How many requests a second a key may send.
    pub requests_per_second: Option<u64>,
    /// Where people and programs reach the server.
    pub public_url: Option<String>,
}

impl Options {
    /// Reads a file's text. Fails with one line that says what is wrong and where.
    pub fn parse(toml: &str) -> Result<Self, String> {
        toml::from_str(toml).map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map(|span| toml[..span.start.min(toml.len())].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message())
        })
    }

    /// The same, with what it leaves out taken from another source.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            store: self.store.or(other.store),
            messenger: self.messenger.or(other.messenger),
            listen: self.listen.or(other.listen),
            tls_certificate: self.tls_certificate.or(other.tls_certificate),
            tls_key: self.tls_key.or(other.tls_key),
            trust_proxy: self.trust_proxy.or(other.trust_proxy),
            job: self.job.or(other.job),
            max_connections: self.max_connections.or(other.max_connections),
            request_seconds: self.request_seconds.or(other.request_seconds),
            stop_seconds: self.stop_seconds.or(other.stop_seconds),
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            public_url: self.public_url.or(other.public_url),
        }
    }

    /// What the server runs with. Fails with everything that is wrong, a line each.
    pub fn settle(self) -> Result<Config, Vec<String>> {
        let mut wrong = Vec::new();
        let listen = self.settle_listen(&mut wrong);
        let tls = self.settle_tls(&mut wrong);
        let public_url = self.settle_public_url(&mut wrong);
        let trust_proxy = self.trust_proxy.unwrap_or(false);
        if let Some(listen) = listen
            && !listen.ip().is_loopback()
            && tls.is_none()
            && !trust_proxy
            && wrong.is_empty()
        {
            wrong.push(format!(
                "keys would cross the network in the clear: beyond this machine the server needs \
                 tls_certificate and tls_key, or trust_proxy where a proxy in front of it does \
                 TLS: listen=`{listen}`"
            ));
        }
        let job = self.job.unwrap_or_else(|| format!("serve-{}", std::process::id()));
        if job.is_empty() || job.len() > 100 {
            wrong.push("job is 1 to 100 bytes long".to_owned());
        }
        let mut number = |name: &str, given: Option<u64>, default: u64, most: u64| {
            let value = given.unwrap_or(default);
            if value == 0 || value > most {
                wrong.push(format!("{name} is 1 to {most}: {name}=`{value}`"));
            }
            value
        };
        let connections = self.max_connections.map(|count| count as u64);
        let connections =
            number("max_connections", connections, DEFAULT_CONNECTIONS as u64, 1_000_000);
        let request =
            number("request_seconds", self.request_seconds, DEFAULT_REQUEST_SECONDS, 3600);
        let stop = number("stop_seconds", self.stop_seconds, DEFAULT_STOP_SECONDS, 3600);
        let requests =
            number("requests_per_second", self.requests_per_second, DEFAULT_REQUESTS, 1_000_000);
        let (Some(listen), true) = (listen, wrong.is_empty()) else { return Err(wrong) };
        Ok(Config {
            listen,
            tls,
            trust_proxy,
            job,
            max_connections: usize::try_from(connections).unwrap_or(usize::MAX),
            request_time: Duration::from_secs(request),
            stop_time: Duration::from_secs(stop),
            requests_per_second: u32::try_from(requests)
                .ok()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MAX),
            public_url,
        })
    }

    /// Without the slash at its end. The console lies at `/`, so there is no path.
    fn settle_public_url(&self, wrong: &mut Vec<String>) -> Option<String> {
        let given = self.public_url.as_deref()?;
        let url = given.strip_suffix('/').unwrap_or(given);
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        if authority.is_none_or(|authority| authority.as_str().contains('@')) {
            wrong.push(format!(
                "public_url is a host and perhaps a port behind https:// or http://, such as \
                 https://profiles.example.com: public_url=`{given}`"
            ));
        }
        Some(url.to_owned())
    }

    fn settle_listen(&self, wrong: &mut Vec<String>) -> Option<SocketAddr> {
        let listen = self.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let parsed = listen.parse().ok();
        if parsed.is_none() {
            wrong.push(format!(
                "listen is an address and a port, such as 127.0.0.1:7400 or [::]:7400: \
                 listen=`{listen}`"
            ));
        }
        parsed
    }

    fn settle_tls(&self, wrong: &mut Vec<String>) -> Option<TlsFiles> {
        match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                return Some(TlsFiles { certificate: certificate.clone(), key: key.clone() });
            }
            (None, None) => {}
            (Some(_), None) => wrong.push("tls_certificate needs tls_key beside it".to_owned()),
            (None, Some(_)) => wrong.push("tls_key needs tls_certificate beside it".to_owned()),
        }
        None
    }
}

/// What a server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Option<TlsFiles>,
    /// A proxy in front of it does TLS.
    pub trust_proxy: bool,
    /// Its name.
    pub job: String,
    /// How many connections are open at once.
    pub max_connections: usize,
    /// The longest that one request takes.
    pub request_time: Duration,
    /// How long a stopping server waits for requests under way.
    pub stop_time: Duration,
    /// How many requests a second a key may send.
    pub requests_per_second: NonZeroU32,
    /// Where people and programs reach it, if that is not where it listens.
    pub public_url: Option<String>,
}

impl Config {
    /// Whether only this machine reaches the server, so that it may make its own first key, and
    /// must check by which name it is called.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback() && !self.trust_proxy
    }

    /// What people and programs are to type, once it listens at this address.
    pub fn url(&self, address: SocketAddr) -> String {
        if let Some(url) = &self.public_url {
            return url.clone();
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // What stands for every address of this machine is no address to type.
        let typed = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        format!("{scheme}://{}", SocketAddr::new(typed, address.port()))
    }
}

impl Default for Config {
    fn default() -> Self {
        Options::default().settle().expect("the defaults are right")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_setting_only_this_machine_is_served() {
        let config = Config::default();
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
        assert!(config.is_local());
    }

    #[test]
    fn the_first_source_that_says_something_counts() {
        let file = Options::parse("listen = \"127.0.0.1:1\"\njob = \"file\"").unwrap();
        let flags = Options { job: Some("flag".into()), ..Options::default() };
        let config = flags.or(file).settle().unwrap();
        assert_eq!((config.job.as_str(), config.listen.port()), ("flag", 1));
    }

    #[test]
    fn beyond_this_machine_it_takes_tls_or_a_proxy() {
        let open = Options { listen: Some("0.0.0.0:7400".into()), ..Options::default() };
        let wrong = open.clone().settle().unwrap_err();
        assert!(wrong[0].contains("in the clear"), "{wrong:?}");
        let behind = Options { trust_proxy: Some(true), ..open.clone() };
        assert!(!behind.settle().unwrap().is_local());
        let tls = Options {
            tls_certificate: Some("c.pem".into()),
            tls_key: Some("k.pem".into()),
            ..open
        };
        assert!(!tls.settle().unwrap().is_local());
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = Options {
            listen: Some("localhost".into()),
            tls_key: Some("k.pem".into()),
            job: Some(String::new()),
            max_connections: Some(0),
            requests_per_second: Some(0),
            ..Options::default()
        };
        assert_eq!(wrong.settle().unwrap_err().len(), 5);
    }

    #[test]
    fn an_address_that_can_be_typed_is_shown() {
        let shown = |public: Option<&str>, listens: &str| {
            let public_url = public.map(str::to_owned);
            let options = Options { public_url, ..Options::default() };
            options.settle().map(|config| config.url(listens.parse().unwrap()))
        };
        assert_eq!(shown(None, "127.0.0.1:7400").unwrap(), "http://127.0.0.1:7400");
        assert_eq!(shown(None, "0.0.0.0:7400").unwrap(), "http://127.0.0.1:7400");
        assert_eq!(shown(None, "[::]:7400").unwrap(), "http://[::1]:7400");
        for given in ["https://p.example", "https://p.example/", "http://10.0.0.1:8080"] {
            let typed = given.trim_end_matches('/');
            assert_eq!(shown(Some(given), "0.0.0.0:7400").unwrap(), typed);
        }
        for wrong in
            ["", "p.example", "ftp://p.example", "https://", "https://p.example/at", "https://a@b"]
        {
            assert!(shown(Some(wrong), "0.0.0.0:7400").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_in_the_file_that_is_none_is_refused_with_its_line() {
        let wrong = Options::parse("job = \"a\"\nlisten_on = \"x\"").unwrap_err();
        assert!(wrong.starts_with("line 2: unknown field `listen_on`"), "{wrong}");
    }

    #[test]
    fn the_table_names_what_the_file_takes() {
        for (name, env, flag, ..) in SETTINGS {
            let value = match name {
                "trust_proxy" => "true",
                "max_connections" | "request_seconds" | "stop_seconds" | "requests_per_second" => {
                    "7"
                }
                _ => "\"a\"",
            };
            Options::parse(&format!("{name} = {value}")).unwrap();
            assert_eq!(flag, format!("--{}", name.replace('_', "-")));
            assert_eq!(env, format!("PROFILESTORE_{}", name.to_uppercase()));
        }
    }
}
