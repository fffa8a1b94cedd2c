//! Web pages that may ask from a browser: their origins.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// One origin as browsers name it, `https://app.example:8443`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every page.
    Any,
    /// Pages from there.
    Named(String),
}

/// Which pages may ask. None may where the list is empty.
#[derive(Debug, Clone, Default)]
pub struct CorsOrigins(Vec<Origin>);

impl CorsOrigins {
    /// These.
    #[must_use]
    pub fn new(origins: Vec<Origin>) -> Self {
        Self(origins)
    }

    /// All origins; `None` where every page may ask.
    #[must_use]
    pub fn named(&self) -> Option<Vec<&str>> {
        let named = |origin: &'_ Origin| matches!(origin, Origin::Named(_));
        self.0.iter().all(named).then(|| {
            let names = self.0.iter().filter_map(|origin| match origin {
                Origin::Any => None,
                Origin::Named(name) => Some(name.as_str()),
            });
            names.collect()
        })
    }

    /// No page may ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Origin {
    type Err = String;

    /// Browsers send an origin in one spelling, and it is compared letter by letter: any other would never match.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let is_origin = |uri: &Uri| {
            let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
            let default_port = match scheme {
                "https" => 443,
                "http" => 80,
                _ => return false,
            };
            authority.port_u16() != Some(default_port) && text == format!("{scheme}://{authority}")
        };
        let is_lower = !text.contains(|c: char| c.is_ascii_uppercase()) && !text.contains('@');
        match text.parse::<Uri>() {
            Ok(uri) if is_lower && is_origin(&uri) => Ok(Self::Named(text.to_owned())),
            _ => {
                Err("write an origin as browsers send it, in lower case, without a path and without the port that its \
                      scheme has anyway: https://app.example, http://localhost:3000; or *"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for text in ["https://app.example", "http://localhost:3000", "http://[::1]:3000", "https://a.example:80", "*"] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "app.example",
            "https://app.example/",
            "https://app.example/x",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://me@app.example",
            "ftp://app.example",
            "null",
            "https://*.example/",
        ] {
            assert!(text.parse::<Origin>().is_err_and(|error| error.contains("https://app.example")), "{text}");
        }
    }
}
