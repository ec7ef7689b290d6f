//! Where the database lies and how it is reached: the URL, the password, TLS. The password is never
//! shown: messages and `Debug` output build the URL anew without it.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use super::password;
use crate::{data_store::StoreError, env::Env};

/// The schema in which a store lies unless another one is named.
pub const DEFAULT_SCHEMA: &str = "profilestore";

/// Whose clock stamps what a [`PostgresStore`](super::PostgresStore) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PostgresClock {
    /// The database server's, `clock_timestamp()`: one clock for all game servers.
    #[default]
    Server,
    /// The environment's: tests move it. All who share the store must share it.
    #[cfg(any(test, feature = "test-util"))]
    Env,
}

/// How a [`PostgresStore`](super::PostgresStore) is reached: parsed from a URL, then changed at
/// will.
///
/// `postgres://USER@HOST:PORT/DATABASE?PARAMETER=VALUE&…`, with several `HOST:PORT` separated by
/// commas if the database may move: they are tried in turn until one may be written to. Parameters
/// beyond those of libpq that tokio-postgres knows (`sslmode`, `connect_timeout`,
/// `application_name`, `keepalives…`): `sslrootcert`, `sslcert` and `sslkey` name PEM files,
/// `schema` the store's schema. Without a password in it, `PGPASSWORD` and the password file
/// (`PGPASSFILE`, or `~/.pgpass`) are asked.
///
/// **TLS** is required for every host that is not this machine, with its certificate and name
/// verified against `sslrootcert` or the system's roots, whether `sslmode` says `require`,
/// `verify-ca`, `verify-full` or nothing. `sslmode=disable` switches it off. A connection within
/// this machine uses it only when asked to.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The schema that holds the tables: lower-case letters, digits and underscores, at most 48.
    /// Default: `profilestore`.
    pub schema: String,
    /// How many connections write. Each has one transaction under way; what comes meanwhile waits
    /// and shares the next. Default: 2.
    pub writers: usize,
    /// How many connections read. Default: 6, so that with those that write and the one of a
    /// `PostgresMessenger` nine game servers fit into the hundred connections that a server allows
    /// unless it is told otherwise.
    pub readers: usize,
    /// How many commits may share one transaction. Default: 64.
    pub batch: usize,
    /// How long the server may take for a statement, the wait for locks included. Default: 10 s.
    /// Two seconds later the client gives up by itself and closes the connection; that also bounds
    /// the wait of a `COMMIT` for a synchronous standby. At most 20 days: a longer one counts as
    /// that.
    pub statement_timeout: Duration,
    /// How long a connection may take to be made, for each host. Default: 5 s.
    pub connect_timeout: Duration,
    /// Whose clock stamps.
    pub clock: PostgresClock,
    /// Identifiers. Default: the operating system's.
    pub env: Env,
    pub(super) hosts: Vec<Config>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresOptions").field(&self.to_string()).finish()
    }
}

/// As a URL, without password and parameters.
impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        let first = self.hosts.first();
        if let Some(user) = first.and_then(Config::get_user) {
            write!(f, "{user}@")?;
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match host.get_hosts().first() {
                Some(Host::Tcp(name)) if name.contains(':') => write!(f, "{comma}[{name}]")?,
                Some(Host::Tcp(name)) => write!(f, "{comma}{name}")?,
                #[cfg(unix)]
                Some(Host::Unix(path)) => write!(f, "{comma}{}", path.display())?,
                None => {}
            }
            if let Some(port) = host.get_ports().first().filter(|port| **port != 5432) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", first.and_then(Config::get_dbname).unwrap_or_default())?;
        if self.schema != DEFAULT_SCHEMA {
            write!(f, "?schema={}", self.schema)?;
        }
        Ok(())
    }
}

/// Parameters of the URL that are this module's, taken out of it.
#[derive(Default)]
struct Own {
    sslmode: Option<String>,
    roots: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    schema: Option<String>,
}

impl FromStr for PostgresOptions {
    type Err = StoreError;

    /// Fails with [`StoreError::Invalid`]; the reason never repeats the URL. Reads the password
    /// file and certificates.
    fn from_str(url: &str) -> Result<Self, StoreError> {
        let (rest, own) = split(url)?;
        // What the parser found wrong may quote a part of a password.
        let config: Config = rest.parse().map_err(|_| {
            invalid(
                "the URL of the database cannot be understood; it is \
                 postgres://USER@HOST:PORT/DATABASE?PARAMETER=VALUE, with special characters percent-encoded",
            )
        })?;
        let hosts = hosts(&config)?;
        let schema = own.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        let mut options = Self {
            schema,
            writers: 2,
            readers: 6,
            batch: 64,
            statement_timeout: Duration::from_secs(10),
            connect_timeout: config
                .get_connect_timeout()
                .copied()
                .unwrap_or(Duration::from_secs(5)),
            clock: PostgresClock::default(),
            env: Env::system(),
            hosts,
            tls: None,
        };
        options.check_schema()?;
        let encrypted = options.choose_tls(&own)?;
        if encrypted {
            options.tls = Some(Arc::new(client_tls(&own)?));
        }
        for host in &mut options.hosts {
            if host.get_password().is_none()
                && let Some(password) = password::find(host)
            {
                host.password(password);
            }
        }
        Ok(options)
    }
}

impl PostgresOptions {
    pub(super) fn check_schema(&self) -> Result<(), StoreError> {
        let fits = |(at, c): (usize, char)| {
            c == '_' || c.is_ascii_lowercase() || (at > 0 && c.is_ascii_digit())
        };
        let reserved = self.schema.starts_with("pg_")
            || self.schema == "public"
            || self.schema == "information_schema";
        if self.schema.is_empty()
            || self.schema.len() > 48
            || reserved
            || !self.schema.chars().enumerate().all(fits)
        {
            return Err(invalid(
                "the schema of a store is its own, named with at most 48 lower-case letters, \
                    digits and underscores",
            ));
        }
        Ok(())
    }

    /// Decides for each host; true when one of them is to be reached through TLS.
    fn choose_tls(&mut self, own: &Own) -> Result<bool, StoreError> {
        let asked = match own.sslmode.as_deref() {
            None => None,
            Some("disable") => Some(false),
            Some("require" | "verify-ca" | "verify-full") => Some(true),
            Some("allow" | "prefer") => {
                return Err(invalid(
                    "sslmode=prefer and sslmode=allow may go without TLS \
                    unnoticed; say require or disable",
                ));
            }
            Some(_) => return Err(invalid("sslmode is require, verify-full or disable")),
        };
        let mut any = false;
        for host in &mut self.hosts {
            let encrypted = asked.unwrap_or(!is_local(host)) && !is_socket(host);
            host.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
            any |= encrypted;
        }
        Ok(any)
    }
}

/// Takes this module's own parameters out of a URL.
fn split(url: &str) -> Result<(String, Own), StoreError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("the URL of a database begins with postgres://"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut own = Own::default();
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| invalid("a parameter of the URL is not UTF-8"))?;
        let path = || Some(PathBuf::from(&*value));
        match name {
            "sslmode" => own.sslmode = Some(value.into_owned()),
            "sslrootcert" => own.roots = path(),
            "sslcert" => own.certificate = path(),
            "sslkey" => own.key = path(),
            "schema" => own.schema = Some(value.into_owned()),
            _ => others.push(parameter),
        }
    }
    let query = others.join("&");
    Ok((if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }, own))
}

/// One configuration a host, so that each is tried for its own time.
fn hosts(config: &Config) -> Result<Vec<Config>, StoreError> {
    if !config.get_hostaddrs().is_empty() {
        return Err(invalid("hostaddr is not supported; name the host itself"));
    }
    if config.get_hosts().is_empty() {
        return Err(invalid("the URL of the database names no host"));
    }
    let ports = config.get_ports();
    let mut hosts = Vec::new();
    for (at, host) in config.get_hosts().iter().enumerate() {
        let mut one = Config::new();
        match host {
            Host::Tcp(name) => one.host(name),
            #[cfg(unix)]
            Host::Unix(path) => one.host_path(path),
        };
        one.port(ports.get(at).or(ports.first()).copied().unwrap_or(5432));
        match config.get_user() {
            Some(user) => one.user(user),
            None => return Err(invalid("the URL of the database names no user")),
        };
        one.dbname(config.get_dbname().or(config.get_user()).unwrap_or_default());
        if let Some(password) = config.get_password() {
            one.password(password);
        }
        if let Some(options) = config.get_options() {
            one.options(options);
        }
        one.application_name(config.get_application_name().unwrap_or("profilestore"));
        one.ssl_negotiation(config.get_ssl_negotiation())
            .channel_binding(config.get_channel_binding());
        one.keepalives(config.get_keepalives());
        // Two hours is the system's default; a server that vanished is to be noticed within the
        // lease time.
        one.keepalives_idle(config.get_keepalives_idle().min(Duration::from_secs(10)));
        one.keepalives_interval(config.get_keepalives_interval().unwrap_or(Duration::from_secs(2)));
        one.keepalives_retries(config.get_keepalives_retries().unwrap_or(3));
        one.tcp_user_timeout(
            config.get_tcp_user_timeout().copied().unwrap_or(Duration::from_secs(10)),
        );
        one.target_session_attrs(TargetSessionAttrs::ReadWrite);
        hosts.push(one);
    }
    Ok(hosts)
}

fn is_socket(config: &Config) -> bool {
    !matches!(config.get_hosts().first(), Some(Host::Tcp(_)))
}

fn is_local(config: &Config) -> bool {
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        _ => true,
    }
}

fn client_tls(own: &Own) -> Result<ClientConfig, StoreError> {
    let mut roots = RootCertStore::empty();
    let unreadable = |what: &str, path: &std::path::Path, err: &dyn fmt::Display| {
        invalid(&format!("{what} cannot be read: {err}: path=`{}`", path.display()))
    };
    let certificates =
        |what: &str, path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, StoreError> {
            let found = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>);
            found.map_err(|err| unreadable(what, path, &err))
        };
    match &own.roots {
        Some(path) => {
            for certificate in certificates("sslrootcert", path)? {
                roots.add(certificate).map_err(|err| unreadable("sslrootcert", path, &err))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid("no certificates to trust were found; name a PEM file by sslrootcert"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| invalid(&format!("TLS cannot be set up: {err}")))?
        .with_root_certificates(roots);
    match (&own.certificate, &own.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates("sslcert", certificate)?;
            let secret =
                PrivateKeyDer::from_pem_file(key).map_err(|err| unreadable("sslkey", key, &err))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|err| invalid(&format!("sslcert and sslkey do not fit: {err}")))
        }
        _ => Err(invalid("sslcert and sslkey belong together")),
    }
}

fn invalid(reason: &str) -> StoreError {
    StoreError::Invalid { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresOptions, StoreError> {
        url.parse()
    }

    #[test]
    fn a_password_is_never_shown() {
        let options =
            parse("postgres://me:hush%40@localhost:5433/game?schema=other&application_name=x")
                .unwrap();
        assert_eq!(options.hosts[0].get_password(), Some(&b"hush@"[..]));
        for shown in [options.to_string(), format!("{options:?}"), format!("{options:#?}")] {
            assert!(!shown.contains("hush"), "{shown}");
        }
        assert_eq!(options.to_string(), "postgres://me@localhost:5433/game?schema=other");
        for url in [
            "postgres://me:hush@localhost:hush/x",
            "postgres://me:hush/x@h/x",
            "postgres://me:hush@h/x?hush=hush",
            "hush",
        ] {
            // A slash in a password need not be escaped: the second one is taken.
            let text = parse(url).map_or_else(
                |err| format!("{err} {err:?}"),
                |options| format!("{options} {options:?}"),
            );
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn remote_hosts_need_tls_unless_it_is_switched_off() {
        let modes = |url: &str| {
            let options = parse(url).unwrap();
            let modes: Vec<_> = options.hosts.iter().map(Config::get_ssl_mode).collect();
            (modes, options.tls.is_some())
        };
        assert_eq!(modes("postgres://u@127.0.0.1/d"), (vec![SslMode::Disable], false));
        assert_eq!(
            modes("postgres://u@localhost,[::1]:5433/d"),
            (vec![SslMode::Disable; 2], false)
        );
        assert_eq!(
            modes("postgres://u@%2Frun%2Fpostgresql/d?sslmode=require"),
            (vec![SslMode::Disable], false)
        );
        assert_eq!(
            modes("postgres://u@db.example/d?sslmode=disable"),
            (vec![SslMode::Disable], false)
        );
        for wrong in ["prefer", "allow", "maybe"] {
            assert!(
                parse(&format!("postgres://u@db.example/d?sslmode={wrong}")).is_err(),
                "{wrong}"
            );
        }
        let missing = parse("postgres://u@db.example/d?sslrootcert=/no/such.pem").unwrap_err();
        assert!(missing.to_string().contains("/no/such.pem"), "{missing}");
    }

    #[test]
    fn every_host_is_tried_for_itself_and_must_be_writable() {
        let options = parse("postgres://u@localhost:1,127.0.0.1:2/d").unwrap();
        let ports: Vec<_> = options.hosts.iter().map(|host| host.get_ports().to_vec()).collect();
        assert_eq!(ports, [[1], [2]]);
        assert!(
            options
                .hosts
                .iter()
                .all(|host| host.get_target_session_attrs() == TargetSessionAttrs::ReadWrite)
        );
    }

    #[test]
    fn a_schema_needs_no_quotes() {
        for good in ["profilestore", "t_1", "_x"] {
            assert!(parse(&format!("postgres://u@localhost/d?schema={good}")).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "a-b", "a%22b", "pg_x", "public"] {
            assert!(parse(&format!("postgres://u@localhost/d?schema={bad}")).is_err(), "{bad}");
        }
    }
}
