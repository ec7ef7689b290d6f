//! The network for scripts: only the hosts that a caller names, through HttpService. Requests
//! block, so they are made on a thread of their own.

use std::{collections::BTreeMap, error, fmt, io, str::FromStr, sync::Arc, time::Duration};

use ureq::{
    Agent, Error,
    config::Config,
    http::{
        self, HeaderMap, Method, Uri,
        uri::{Authority, InvalidUri},
    },
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// A host that scripts may reach: `example.com` on the ports of http and https, or
/// `127.0.0.1:8080` on this port alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpHost {
    name: String,
    port: Option<u16>,
}

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no host: write example.com, or 127.0.0.1:8080 for one port")]
pub struct HttpHostError(String);

impl FromStr for HttpHost {
    type Err = HttpHostError;

    fn from_str(text: &str) -> Result<Self, HttpHostError> {
        let wrong = || HttpHostError(text.to_owned());
        let authority: Authority = text.parse().map_err(|_: InvalidUri| wrong())?;
        let name = authority.host();
        // `host:` has no port, and `host:99999` none that there is.
        let port = text.strip_prefix(name).ok_or_else(wrong)?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().map_err(|_| wrong())?),
            None => None,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

impl HttpHost {
    fn allows(&self, uri: &Uri) -> bool {
        let usual = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return false,
        };
        let is_named = uri.host().is_some_and(|host| host.eq_ignore_ascii_case(&self.name));
        is_named && uri.port_u16().unwrap_or(usual) == self.port.unwrap_or(usual)
    }
}

/// What a script asks for.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// How long a request may take with all its redirects, and how much may come back.
struct Bounds {
    time: Duration,
    size: u64,
}

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(30), size: 10 << 20 };

/// How much a request may send, as on Roblox.
const MAX_SENT: usize = 1 << 20;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Headers that Roblox sets by itself.
const LOCKED: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "proxy-connection",
    "roblox-id",
    "user-agent",
    "via",
    "x-att-deviceid",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-wap-profile",
];

/// Sends what scripts ask for, to the hosts that are named.
pub(crate) struct Client {
    agent: Agent,
    place_id: i64,
    bounds: Bounds,
}

impl Client {
    pub(crate) fn new(hosts: Vec<HttpHost>, place_id: i64) -> Self {
        Self::bounded(hosts, place_id, BOUNDS)
    }

    fn bounded(hosts: Vec<HttpHost>, place_id: i64, bounds: Bounds) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Another process would decide where requests go.
            .proxy(None)
            .timeout_global(Some(bounds.time))
            .tls_config(tls())
            .build();
        let resolver = Named { hosts, inner: DefaultResolver::default() };
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        Self { agent, place_id, bounds }
    }

    /// Waits for the answer. The error is a text as Roblox has it, where that is known.
    pub(crate) fn send(&self, request: &Request) -> Result<Response, String> {
        check(request)?;
        let mut response = self.run(request).map_err(|error| text_of(&error))?;
        let body = response.body_mut().with_config().limit(self.bounds.size).read_to_vec();
        let body = body.map_err(|error| text_of(&error))?;
        let status = response.status();
        Ok(Response {
            status: status.as_u16(),
            message: status.canonical_reason().unwrap_or_default().to_owned(),
            headers: headers_of(response.headers()),
            body,
        })
    }

    fn run(&self, request: &Request) -> Result<http::Response<ureq::Body>, Error> {
        let method = Method::from_bytes(request.method.as_bytes()).map_err(http::Error::from)?;
        let has_body = !request.body.is_empty()
            || matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let mut built = http::Request::builder()
            .method(method)
            .uri(&request.url)
            .header("user-agent", "Roblox/Linux")
            .header("roblox-id", self.place_id);
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        if has_body {
            self.agent.run(built.body(&request.body[..])?)
        } else {
            self.agent.run(built.body(())?)
        }
    }
}

/// The system's own roots, as for PostgreSQL.
fn tls() -> TlsConfig {
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .build()
}

/// What is wrong with a request before it is sent.
fn check(request: &Request) -> Result<(), String> {
    let Request { method, headers, body, .. } = request;
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("the method {method} is none of {}", METHODS.join(", ")));
    }
    if !body.is_empty() && matches!(method.as_str(), "GET" | "HEAD") {
        return Err(format!("a request with the method {method} has no body"));
    }
    if body.len() > MAX_SENT {
        return Err(format!("the body has {} bytes; at most {MAX_SENT} are sent", body.len()));
    }
    for name in headers.keys() {
        if LOCKED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!("Header \"{name}\" is not allowed!"));
        }
    }
    Ok(())
}

fn headers_of(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.to_string());
    }
    all
}

/// Finds the addresses of hosts that are named, and no others. Every connection asks here first,
/// those too that redirects lead to.
#[derive(Debug)]
struct Named {
    hosts: Vec<HttpHost>,
    inner: DefaultResolver,
}

impl Resolver for Named {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if !self.hosts.iter().any(|host| host.allows(uri)) {
            return Err(Error::Other(Box::new(Refused(uri.authority().cloned()))));
        }
        // What the system says of a name that it does not find is an error of input and output.
        let found = self.inner.resolve(uri, config, timeout);
        found.map_err(|error| if let Error::Io(_) = error { Error::HostNotFound } else { error })
    }
}

/// A host that is not named.
#[derive(Debug)]
struct Refused(Option<Authority>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.as_ref().map_or("", Authority::as_str);
        write!(f, "no --allow-http names the host {host}")
    }
}

impl error::Error for Refused {}

/// The names are those of Enum.HttpError.
fn text_of(error: &Error) -> String {
    let name = match error {
        Error::Other(refused) if refused.is::<Refused>() => return refused.to_string(),
        Error::BodyExceedsLimit(limit) => {
            return format!("HttpError: OutOfMemory (the answer has more than {limit} bytes)");
        }
        Error::HostNotFound => "DnsResolve",
        Error::Timeout(_) => "TimedOut",
        Error::TooManyRedirects => "TooManyRedirects",
        Error::RedirectFailed => "InvalidRedirect",
        Error::Tls(_) | Error::Rustls(_) => "SslConnectFail",
        Error::Http(_) | Error::BadUri(_) => "InvalidUrl",
        Error::ConnectionFailed => "ConnectFail",
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "ConnectFail",
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => "TimedOut",
        _ => "NetFail",
    };
    format!("HttpError: {name} ({error})")
}

#[cfg(test)]
mod tests;
