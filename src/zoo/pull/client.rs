//! One GET, through redirects, proxies and TLS, with a token that only the hub gets to see. Trying again is left to
//! [`super::fetch`].

use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::error::{HubDetail, PullError, Token};
use super::hub::Hub;
use super::manners::Patience;
use super::proxy::Proxies;

/// Redirects followed at most. The hub needs one or two: to the new name of a repository, and to its storage.
const REDIRECTS_MAX: usize = 8;

/// Talks to one hub, and to whomever it sends us on to.
pub(super) struct Client {
    hub: Hub,
    token: Option<String>,
    proxies: Proxies,
    direct: Agent,
    http_proxied: Option<Agent>,
    https_proxied: Option<Agent>,
}

/// The rest of a file: where it begins, and which version of the file is meant.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) from: u64,
    pub(super) etag: Option<String>,
}

/// An answer that is no redirect.
pub(super) struct Reply {
    /// Who gave it, without the query: a storage's address carries signatures there.
    pub(super) url: String,
    pub(super) response: Response<Body>,
    pub(super) linked: Linked,
    pub(super) token: Token,
}

/// What the hub tells about a large file on the way to its storage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
}

impl Client {
    pub(super) fn new(
        hub: Hub,
        token: Option<String>,
        proxies: Proxies,
        patience: &Patience,
    ) -> Result<Self, PullError> {
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(PullError::BadToken);
        }
        let proxied = |proxy: &Option<(&'static str, String)>| {
            proxy.as_ref().map(|(variable, address)| {
                let proxy = Proxy::new(address).map_err(|_| PullError::BadProxy { variable })?;
                Ok::<_, PullError>(agent(patience, Some(proxy)))
            })
        };
        Ok(Self {
            hub,
            token,
            direct: agent(patience, None),
            http_proxied: proxied(&proxies.http).transpose()?,
            https_proxied: proxied(&proxies.https).transpose()?,
            proxies,
        })
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Asks for `url`, or for the rest of it.
    pub(super) fn get(&self, url: &str, rest: Option<&Rest>) -> Result<Reply, PullError> {
        let mut uri: Uri = url.parse().map_err(|_| bad_redirect(url, "no address"))?;
        let mut linked = Linked::default();
        for _ in 0..=REDIRECTS_MAX {
            let at_hub = self.hub.is_origin_of(&uri);
            let token = self.token_for(&uri);
            let response = self.ask(&uri, token, rest)?;
            if at_hub {
                linked.update(response.headers());
            }
            // 304 and 300 are no redirects either, but neither was asked for.
            let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(location) = location else {
                return Ok(Reply { url: without_query(&uri), response, linked, token });
            };
            let location = location.to_str().map_err(|_| bad_redirect(url, "its address is no text"))?;
            uri = next_hop(&uri, location)?;
        }
        Err(PullError::RedirectLoop { url: url.to_owned(), limit: REDIRECTS_MAX })
    }

    fn token_for(&self, uri: &Uri) -> Token {
        let private = self.hub.is_private() && !self.is_read_by_proxy(uri);
        match (&self.token, self.hub.is_origin_of(uri), private) {
            (Some(_), true, true) => Token::Sent,
            (Some(_), true, false) => Token::Withheld,
            (Some(_), false, _) | (None, _, _) => Token::Unset,
        }
    }

    /// Whether a proxy sees what is asked, and not only whom: `is_private` holds on this machine, a proxy is elsewhere.
    fn is_read_by_proxy(&self, uri: &Uri) -> bool {
        uri.scheme_str() != Some("https") && self.proxy_for(uri).is_some()
    }

    fn ask(&self, uri: &Uri, token: Token, rest: Option<&Rest>) -> Result<Response<Body>, PullError> {
        let mut request = self.agent_for(uri).get(uri);
        if let (Token::Sent, Some(secret)) = (token, &self.token) {
            request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
        }
        if let Some(Rest { from, etag }) = rest {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        request.call().map_err(|error| refused(uri, &error))
    }

    fn agent_for(&self, uri: &Uri) -> &Agent {
        self.proxy_for(uri).unwrap_or(&self.direct)
    }

    fn proxy_for(&self, uri: &Uri) -> Option<&Agent> {
        let proxied = if uri.scheme_str() == Some("https") { &self.https_proxied } else { &self.http_proxied };
        proxied.as_ref().filter(|_| self.proxies.apply_to(uri))
    }
}

impl Linked {
    /// `X-Linked-Etag` is the SHA-256 for files in Git LFS, which on the hub are all large ones.
    fn update(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let is_sha256 = |tag: &&str| tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sha256 = text("x-linked-etag").map(|tag| tag.trim_start_matches("W/").trim_matches('"')).filter(is_sha256);
        self.sha256 = sha256.map(str::to_ascii_lowercase).or(self.sha256.take());
        self.bytes = text("x-linked-size").and_then(|size| size.parse().ok()).or(self.bytes);
    }
}

impl Reply {
    /// The error that a status means; none for 200 and 206. `416` is left to the caller, who knows what it asked for.
    pub(super) fn refusal(&self) -> Option<PullError> {
        let headers = self.response.headers();
        let url = self.url.clone();
        match self.response.status().as_u16() {
            200 | 206 => None,
            404 | 410 => Some(PullError::NotFound { url, detail: detail(headers) }),
            status @ (401 | 403) => Some(PullError::Denied { url, status, detail: detail(headers), token: self.token }),
            status @ (408 | 429 | 500..=599) => {
                Some(PullError::Unavailable { url, status, retry_after: retry_after(headers) })
            }
            status => Some(PullError::Status { url, status, detail: detail(headers) }),
        }
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

fn agent(patience: &Patience, proxy: Option<Proxy>) -> Agent {
    // The system's certificates, so that those of a company's own proxy count; and ring, which builds with cargo and a
    // C compiler alone.
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .http_status_as_error(false)
        // Redirects are followed here: see `next_hop`.
        .max_redirects(0)
        .timeout_connect(Some(patience.connect))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        .timeout_recv_response(Some(patience.stall))
        // Sizes and hashes are of the file, so it must come as it is.
        .accept_encoding("identity")
        .user_agent(concat!("residual/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Where a redirect leads: never from https to http, and to nothing but those two.
fn next_hop(from: &Uri, location: &str) -> Result<Uri, PullError> {
    let refused = |why: &str| bad_redirect(&without_query(from), why);
    let (scheme, authority) = (from.scheme_str().unwrap_or_default(), from.authority().map_or("", |it| it.as_str()));
    let location = location.split('#').next().unwrap_or_default();
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let to: Uri = absolute.parse().map_err(|_| refused(&format!("{location:?} is no address")))?;
    match (scheme, to.scheme_str()) {
        (_, Some("https")) | ("http", Some("http")) => Ok(to),
        ("https", Some("http")) => Err(refused("it leads from https to plain http, where anybody may change the file")),
        (_, other) => Err(refused(&format!("it leads to {}, expected https", other.unwrap_or("nowhere")))),
    }
}

fn bad_redirect(url: &str, why: &str) -> PullError {
    PullError::BadRedirect { url: url.to_owned(), why: why.to_owned() }
}

pub(super) fn without_query(uri: &Uri) -> String {
    let text = uri.to_string();
    text.split('?').next().unwrap_or_default().to_owned()
}

fn refused(uri: &Uri, error: &ureq::Error) -> PullError {
    let url = without_query(uri);
    let why = error.to_string();
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::TlsRequired => PullError::Tls { url, why },
        // rustls hands its verdict on a certificate up as the error of a read.
        ureq::Error::Io(cause) if matches!(cause.get_ref(), Some(cause) if cause.is::<rustls::Error>()) => {
            PullError::Tls { url, why }
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => {
            PullError::BadAnswer { url, why }
        }
        _ => PullError::Unreachable { url, why },
    }
}

fn detail(headers: &HeaderMap) -> HubDetail {
    // Somebody else's text: printable, and no longer than a line.
    let text = |name| headers.get(name).and_then(|value: &ureq::http::HeaderValue| value.to_str().ok());
    let said: Vec<&str> = ["x-error-code", "x-error-message"].into_iter().filter_map(text).collect();
    let said: String = said.join(": ").chars().filter(|c| !c.is_control()).take(200).collect();
    HubDetail(Some(said).filter(|said| !said.is_empty()))
}

/// `Retry-After` in seconds. Its other form, a date, is as good as none: the own backoff is used.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &'static str, location: &str) -> Result<String, String> {
        next_hop(&Uri::from_static(from), location).map(|uri| uri.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn redirects_are_resolved_as_addresses_are() {
        let from = "https://hub.example/a/b?x=1";
        assert_eq!(hop(from, "https://cdn.example/f?sig=1#frag").unwrap(), "https://cdn.example/f?sig=1");
        assert_eq!(hop(from, "//cdn.example/f").unwrap(), "https://cdn.example/f");
        assert_eq!(hop(from, "/c").unwrap(), "https://hub.example/c");
        assert_eq!(hop(from, "c").unwrap(), "https://hub.example/a/c");
        assert_eq!(hop("http://127.0.0.1:8080/a", "/c").unwrap(), "http://127.0.0.1:8080/c");
        assert_eq!(hop("http://hub.example/", "https://hub.example/").unwrap(), "https://hub.example/");
    }

    #[test]
    fn redirects_never_leave_https() {
        let error = hop("https://hub.example/a?token=1", "http://hub.example/a").unwrap_err();
        assert!(error.contains("https to plain http") && !error.contains("token"), "{error}");
        for location in ["ftp://x/", "file:///etc/passwd", "http://"] {
            assert!(hop("http://hub.example/a", location).is_err(), "{location}");
        }
    }

    #[test]
    fn the_token_is_for_the_hub_alone_and_never_sent_in_the_open() {
        let token_for = |hub: &str, uri: &'static str| {
            let (hub, token) = (Hub::parse(hub).unwrap(), Some("hf_x".to_owned()));
            let client = Client::new(hub, token, Proxies::default(), &Patience::default()).unwrap();
            client.token_for(&Uri::from_static(uri))
        };
        assert_eq!(token_for("https://hub.example", "https://hub.example/a/b"), Token::Sent);
        assert_eq!(token_for("https://hub.example", "https://cdn.example/a/b"), Token::Unset);
        assert_eq!(token_for("http://hub.example", "http://hub.example/a/b"), Token::Withheld);
        assert_eq!(token_for("http://127.0.0.1:1", "http://127.0.0.1:1/a/b"), Token::Sent);
        let (hub, token) = (Hub::parse("https://hub.example").unwrap(), Some("hf_x\r\nevil: 1".to_owned()));
        let refused = Client::new(hub, token, Proxies::default(), &Patience::default());
        assert!(matches!(refused, Err(PullError::BadToken)));
    }

    #[test]
    fn a_proxy_that_could_read_the_token_gets_none() {
        let proxy = Some(("http_proxy", "http://proxy.example:3128".to_owned()));
        let token_for = |uri: &'static str, bypass: &[&str]| {
            let bypass = bypass.iter().map(|host| (*host).to_owned()).collect();
            let proxies = Proxies { https: proxy.clone(), http: proxy.clone(), bypass };
            let (hub, token) = (Hub::parse(uri).unwrap(), Some("hf_x".to_owned()));
            let client = Client::new(hub, token, proxies, &Patience::default()).unwrap();
            client.token_for(&Uri::from_static(uri))
        };
        assert_eq!(token_for("http://127.0.0.1:1", &[]), Token::Withheld);
        assert_eq!(token_for("http://127.0.0.1:1", &["127.0.0.1"]), Token::Sent);
        assert_eq!(token_for("https://hub.example", &[]), Token::Sent);
    }

    #[test]
    fn only_a_sha256_counts_as_one() {
        let linked = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-linked-etag", tag.parse().unwrap());
            headers.insert("x-linked-size", "12".parse().unwrap());
            let mut linked = Linked::default();
            linked.update(&headers);
            linked.sha256
        };
        let hash = "AB".repeat(32);
        assert_eq!(linked(&format!("\"{hash}\"")), Some(hash.to_ascii_lowercase()));
        assert_eq!(linked(&format!("W/\"{hash}\"")), Some(hash.to_ascii_lowercase()));
        assert_eq!(linked("\"a0b1\""), None);
    }
}
