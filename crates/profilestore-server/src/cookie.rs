//! The cookie of a log-in, and where a request with one may come from.
//!
//! A browser sends the cookie along with what any page makes it ask for. So a request that changes
//! something has to say that it comes from a page of this server.

use std::net::IpAddr;

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, header, uri::Authority};

use crate::{listen::Peer, problem::Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How many cookies of the name are tried.
const MAX_COOKIES: usize = 5;

/// How browsers reach this server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Over TLS: the server's own or its proxy's.
    pub(crate) is_secure: bool,
    /// Through a proxy, which says from where.
    pub(crate) by_proxy: bool,
}

impl Reached {
    /// The name of the cookie. `__Host-`: the browser takes it over TLS alone, for this host alone.
    /// A browser sends the cookies of all ports of a host to each of them, so the port is in it, as
    /// the browser names it. A proxy may say another port to each process behind it.
    pub(crate) fn cookie_name(self, headers: &HeaderMap) -> String {
        let name = if self.is_secure { "__Host-profilestore" } else { "profilestore" };
        if self.by_proxy {
            return name.to_owned();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.and_then(|host| host.trim().parse::<Authority>().ok());
        let port = host.and_then(|host| host.port_u16()).unwrap_or(self.port());
        format!("{name}-{port}")
    }

    /// The port that a browser does not name.
    fn port(self) -> u16 {
        if self.is_secure { 443 } else { 80 }
    }

    /// The values of the cookie in a request. There may be several, of other paths and domains.
    pub(crate) fn cookies(self, headers: &HeaderMap) -> Vec<&str> {
        let own = self.cookie_name(headers);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';'));
        let values = pairs.filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == own && !value.is_empty()).then_some(value)
        });
        values.take(MAX_COOKIES).collect()
    }

    /// The header that gives a browser the cookie for so many seconds. 0: it forgets it.
    pub(crate) fn set_cookie(self, name: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Fails when a request that changes something comes from a page of another server, or, if it
    /// must, does not say that it comes from one of this.
    pub(crate) fn check_origin(self, headers: &HeaderMap, must_say: bool) -> Result<(), Problem> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let site = text(SEC_FETCH_SITE);
        let origin = text(header::ORIGIN);
        let is_own = match (site, origin) {
            (Some(site), _) if site != "same-origin" => false,
            (_, Some(origin)) => self.is_own(origin, headers),
            (Some(_), None) => true,
            (None, None) => !must_say,
        };
        if is_own {
            return Ok(());
        }
        let detail = match (site, origin) {
            (None, None) => {
                "a request with a cookie that changes something needs the header \
                `Origin` or `Sec-Fetch-Site`"
            }
            _ => "the request comes from a page of another site",
        };
        Err(Problem::new("cross-site", detail))
    }

    fn is_own(self, origin: &str, headers: &HeaderMap) -> bool {
        let scheme = if self.is_secure { "https" } else { "http" };
        let port = self.port();
        let Some((of, authority)) = origin.split_once("://") else { return false };
        let forwarded = headers.get(FORWARDED_HOST).filter(|_| self.by_proxy);
        let hosts = [headers.get(header::HOST), forwarded];
        let same = |host: &HeaderValue| {
            let named = |text: &str| {
                let authority = text.trim().parse::<Authority>().ok()?;
                let host = authority.host().to_ascii_lowercase();
                Some((host, authority.port_u16().unwrap_or(port)))
            };
            let host = host.to_str().ok().and_then(named);
            host.is_some() && host == named(authority)
        };
        of == scheme && hosts.into_iter().flatten().any(same)
    }

    /// The address that a request comes from.
    pub(crate) fn address(self, headers: &HeaderMap, extensions: &Extensions) -> IpAddr {
        let peer = extensions.get::<Peer>().map(|peer| peer.0.ip());
        let peer = peer.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        if !self.by_proxy {
            return peer;
        }
        // The last one is what the proxy itself saw.
        let line = headers.get_all(FORWARDED_FOR).iter().next_back();
        let last = line.and_then(|line| line.to_str().ok()?.rsplit(',').next());
        last.and_then(|last| last.trim().parse().ok()).unwrap_or(peer)
    }
}

/// Whether a method changes nothing.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Reached = Reached { is_secure: false, by_proxy: false };
    const PROXY: Reached = Reached { is_secure: true, by_proxy: true };

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_page_of_another_site_is_told_by_either_header() {
        let host = ("host", "127.0.0.1:7400");
        let fine: [&[(&str, &str)]; 3] = [
            &[host, ("origin", "http://127.0.0.1:7400")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("origin", "http://127.0.0.1:7400"), ("sec-fetch-site", "same-origin")],
        ];
        for pairs in fine {
            PLAIN.check_origin(&headers(pairs), true).unwrap();
        }
        let wrong: [&[(&str, &str)]; 8] = [
            &[host, ("origin", "http://127.0.0.1:7401")],
            &[host, ("origin", "https://127.0.0.1:7400")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "http://127.0.0.1:7400.evil.example")],
            &[host, ("origin", "null")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://127.0.0.1:7400"), ("sec-fetch-site", "same-site")],
        ];
        for pairs in wrong {
            assert!(PLAIN.check_origin(&headers(pairs), false).is_err(), "{pairs:?}");
        }
        assert!(PLAIN.check_origin(&headers(&[host]), true).is_err());
        PLAIN.check_origin(&headers(&[host]), false).unwrap();
        let behind = [
            ("host", "10.0.0.7:7400"),
            ("x-forwarded-host", "game.example"),
            ("origin", "https://game.example"),
        ];
        PROXY.check_origin(&headers(&behind), true).unwrap();
        assert!(PLAIN.check_origin(&headers(&behind), true).is_err());
    }

    #[test]
    fn the_cookie_is_found_among_others_and_kept_from_scripts() {
        let cookies = "a=1; profilestore-7400=x.y; __Host-profilestore=z; profilestore-7400=w; \
            profilestore-7401=v";
        let given = headers(&[("host", "localhost:7400"), ("cookie", cookies)]);
        assert_eq!(PLAIN.cookies(&given), ["x.y", "w"], "those of its own port, each");
        assert_eq!(PROXY.cookies(&given), ["z"]);
        let many = "profilestore-80=x; ".repeat(20);
        let many = headers(&[("host", "localhost"), ("cookie", many.trim())]);
        assert_eq!(PLAIN.cookies(&many).len(), MAX_COOKIES);
        let name = PROXY.cookie_name(&given);
        let set = PROXY.set_cookie(&name, "v", 60).unwrap();
        assert_eq!(
            set.to_str().unwrap(),
            "__Host-profilestore=v; HttpOnly; SameSite=Strict; Path=/; Max-Age=60; Secure"
        );
        let plain = PLAIN.set_cookie(&PLAIN.cookie_name(&given), "v", 60).unwrap();
        assert!(plain.to_str().unwrap().starts_with("profilestore-7400=v; "), "{plain:?}");
        assert!(!plain.to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn only_a_proxy_is_believed_about_addresses() {
        let given = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")]);
        let mut extensions = Extensions::new();
        extensions.insert(Peer("9.9.9.9:1".parse().unwrap()));
        assert_eq!(PLAIN.address(&given, &extensions).to_string(), "9.9.9.9");
        assert_eq!(PROXY.address(&given, &extensions).to_string(), "2.2.2.2");
    }
}
