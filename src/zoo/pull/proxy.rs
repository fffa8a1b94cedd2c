//! Which proxy a request takes, as curl reads the usual variables.

use ureq::http::Uri;

/// The proxy variables, read once. An empty one counts as unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `https` addresses: the variable's name and its value.
    pub https: Option<(&'static str, String)>,
    /// For `http` addresses.
    pub http: Option<(&'static str, String)>,
    /// Hosts that are reached without one.
    pub bypass: Vec<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, each also in lower case, which wins.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()).map(|value| (*name, value)))
        };
        let bypass = first(&["no_proxy", "NO_PROXY"]).map_or(String::new(), |(_, value)| value);
        Self {
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            http: first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            bypass: bypass.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|h| !h.is_empty()).collect(),
        }
    }

    /// Whether `uri` is reached through the proxy of its scheme.
    pub(super) fn apply_to(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        // As curl has it: a name stands for itself and for all below it, with or without a dot in front.
        !self.bypass.iter().any(|rule| {
            let domain = rule.trim_start_matches('*').trim_start_matches('.');
            rule == "*" || host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_scheme_has_its_variable_and_lower_case_wins() {
        let proxies = read(&[("HTTPS_PROXY", "a"), ("https_proxy", "b"), ("ALL_PROXY", "c"), ("http_proxy", "")]);
        assert_eq!(proxies.https, Some(("https_proxy", "b".to_owned())));
        assert_eq!(proxies.http, Some(("ALL_PROXY", "c".to_owned())));
        assert_eq!(read(&[]), Proxies::default());
    }

    #[test]
    fn hosts_and_their_subdomains_are_let_past() {
        let proxies = read(&[("no_proxy", "localhost, .example.com,*.test,::1")]);
        let applies = |uri: &'static str| proxies.apply_to(&Uri::from_static(uri));
        for uri in [
            "http://LOCALHOST:1/x",
            "https://example.com/",
            "https://a.b.example.com/",
            "http://x.test/",
            "http://[::1]:80/",
        ] {
            assert!(!applies(uri), "{uri}");
        }
        for uri in ["https://badexample.com/", "http://127.0.0.1/", "http://test.org/"] {
            assert!(applies(uri), "{uri}");
        }
        assert!(!read(&[("NO_PROXY", "*")]).apply_to(&Uri::from_static("http://a/")));
    }
}
