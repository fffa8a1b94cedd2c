//! Which address a client has, where proxies stand between: what they wrote counts as far as they are trusted.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::edge::{Networks, Peer};

/// What most proxies write.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Networks);

impl TrustedProxies {
    /// Those of these networks.
    #[must_use]
    pub fn new(networks: Networks) -> Self {
        Self(networks)
    }

    /// The client behind `peer`. Each proxy adds the address that it saw to the right of what it got; so the right-most
    /// that no trusted proxy has is the last one that somebody trusted saw. What stands to its left anybody may have
    /// written. `Forwarded` (RFC 7239) is read only where there is no `X-Forwarded-For`.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let mut client = peer;
        if !self.0.contains(client.address()) {
            return client;
        }
        let lines = |name| headers.get_all(name).iter().rev().map(|line| String::from_utf8_lossy(line.as_bytes()));
        let mut plain =
            lines(X_FORWARDED_FOR).flat_map(|line| line.rsplit(',').map(address).collect::<Vec<_>>()).peekable();
        let mut elements =
            lines(header::FORWARDED).flat_map(|line| line.rsplit(',').map(forwarded).collect::<Vec<_>>());
        let hops: &mut dyn Iterator<Item = Option<IpAddr>> =
            if plain.peek().is_some() { &mut plain } else { &mut elements };
        for hop in hops {
            // A proxy that hides whom it saw, or wrote what nobody can read, stands for all of its clients.
            let Some(address) = hop else { break };
            client = Peer::of(address);
            if !self.0.contains(client.address()) {
                break;
            }
        }
        client
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The `for` of one element.
fn forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value).next()?;
    address(value)
}

/// A network, or one address, as settings have it.
///
/// # Errors
/// What to write instead.
pub fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let wanted = || "write a network or an address: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32".to_owned();
    text.parse().ok().or_else(one).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|text| network(text).unwrap());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let proxies = TrustedProxies::new(Networks::new(networks.into()));
        proxies.client(Peer::of(peer.parse().unwrap()), &headers).address().to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        let forged = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(client("198.51.100.1", &forged), "198.51.100.1");
        assert_eq!(client("10.1.2.3", &forged), "203.0.113.9");
        assert_eq!(client("::ffff:10.1.2.3", &forged), "203.0.113.9", "the same address in an IPv6 socket");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_counts() {
        for (value, found) in [
            ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("1.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db9::1]:4711,2001:db8::5", "2001:db9::1"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("203.0.113.9, nonsense", "10.1.2.3"),
            ("", "10.1.2.3"),
        ] {
            assert_eq!(client("10.1.2.3", &[("x-forwarded-for", value)]), found, "{value:?}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9, 10.0.0.4")];
        assert_eq!(client("10.1.2.3", &lines), "203.0.113.9", "several headers are one list");
    }

    #[test]
    fn the_standard_header_is_read_as_well() {
        for (value, found) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("for=1.1.1.1, For=\"[2001:db9::17]:4711\"", "2001:db9::17"),
            ("for=192.0.2.60, for=10.0.0.7", "192.0.2.60"),
            ("for=_hidden", "10.1.2.3"),
            ("proto=https", "10.1.2.3"),
        ] {
            assert_eq!(client("10.1.2.3", &[("forwarded", value)]), found, "{value:?}");
        }
    }

    #[test]
    fn networks_are_written_with_or_without_a_length() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert!(network("10.0.0.0/33").unwrap_err().contains("10.0.0.0/8"));
        assert!(network("example.com").is_err());
    }
}
