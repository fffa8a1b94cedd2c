use std::num::NonZeroU32;
use std::path::PathBuf;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::*;
use crate::edge::Networks;

const KEY: &str = "a-key-of-24-characters-x";

fn keys() -> (tempfile::TempDir, Keys) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("keys");
    std::fs::write(&path, format!("app: {KEY}\nanother-key-of-ours-24-c\n")).unwrap();
    (dir, Keys::open(path).unwrap())
}

fn limit(rate: &str, burst: u32) -> Option<RateLimit> {
    Some(RateLimit::new(rate.parse().unwrap(), NonZeroU32::new(burst)))
}

fn with(key: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}")).unwrap())])
}

fn peer(n: u8) -> Option<Peer> {
    Some(Peer::of([192, 0, 2, n].into()))
}

fn admit(guard: &Guard, headers: &HeaderMap, from: u8, access: Access) -> Result<(), Refused> {
    guard.admit(headers, peer(from), access).map(drop)
}

#[test]
fn a_guard_of_nothing_lets_everything_in() {
    let guard = Guard::new(None, None, TrustedProxies::default());
    assert!(!guard.is_on() && !guard.has_keys() && !guard.asks_for_peers());
    assert!(guard.admit(&HeaderMap::new(), None, Access::Use).unwrap().is_none());
}

#[test]
fn keys_open_what_is_not_open_to_everybody() {
    let (_dir, keys) = keys();
    let guard = Guard::new(Some(keys), None, TrustedProxies::default());
    for access in [Access::Use, Access::Collection] {
        assert_eq!(admit(&guard, &with(KEY), 1, access), Ok(()));
        assert_eq!(admit(&guard, &HeaderMap::new(), 1, access), Err(Refused::NoKey));
        assert_eq!(admit(&guard, &with("a-key-of-24-characters-y"), 1, access), Err(Refused::WrongKey));
        assert_eq!(admit(&guard, &with("two words"), 1, access), Err(Refused::Malformed));
    }
    for access in [Access::Probe, Access::Description] {
        assert_eq!(admit(&guard, &HeaderMap::new(), 1, access), Ok(()));
    }
}

#[test]
fn a_key_has_its_rate_wherever_it_comes_from() {
    let (_dir, keys) = keys();
    let guard = Guard::new(Some(keys), limit("1/h", 2), TrustedProxies::default());
    assert_eq!(admit(&guard, &with(KEY), 1, Access::Use), Ok(()));
    assert_eq!(admit(&guard, &with(KEY), 2, Access::Use), Ok(()));
    assert!(matches!(admit(&guard, &with(KEY), 3, Access::Use), Err(Refused::TooFast { .. })));
    assert_eq!(admit(&guard, &with("another-key-of-ours-24-c"), 3, Access::Use), Ok(()), "its neighbour has its own");
    assert_eq!(admit(&guard, &with(KEY), 1, Access::Collection), Ok(()), "metrics are read at any rate");
    assert_eq!(admit(&guard, &HeaderMap::new(), 1, Access::Probe), Ok(()), "and so is health");
}

#[test]
fn guessing_keys_has_a_rate_that_takes_nothing_from_those_who_have_one() {
    let (_dir, keys) = keys();
    let guard = Guard::new(Some(keys), limit("1/h", 2), TrustedProxies::default());
    assert_eq!(admit(&guard, &with("guess-number-one-1234"), 1, Access::Use), Err(Refused::WrongKey));
    assert_eq!(admit(&guard, &HeaderMap::new(), 1, Access::Use), Err(Refused::NoKey));
    assert!(matches!(admit(&guard, &with("guess-number-three-12"), 1, Access::Use), Err(Refused::TooFast { .. })));
    assert!(matches!(
        admit(&guard, &with("guess-number-four-123"), 1, Access::Collection),
        Err(Refused::TooFast { .. })
    ));
    assert_eq!(admit(&guard, &with(KEY), 1, Access::Use), Ok(()), "from the same address");
}

#[test]
fn without_keys_an_address_is_a_client_and_a_trusted_proxy_is_not() {
    let proxies = TrustedProxies::new(Networks::new(vec!["192.0.2.9/32".parse().unwrap()]));
    let guard = Guard::new(None, limit("1/h", 1), proxies);
    assert!(guard.asks_for_peers());
    let behind = |client: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(client))])
    };
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        assert_eq!(admit(&guard, &behind(client), 9, Access::Use), Ok(()), "{client}");
    }
    for client in ["203.0.113.1", "2001:db8:0:1::ffff"] {
        assert!(matches!(admit(&guard, &behind(client), 9, Access::Use), Err(Refused::TooFast { .. })), "{client}");
    }
    assert_eq!(admit(&guard, &behind("203.0.113.1"), 8, Access::Use), Ok(()), "who is no proxy is not believed");
}

#[test]
fn what_nobody_can_read_of_a_header_hides_nothing_to_its_right() {
    let proxies = TrustedProxies::new(Networks::new(vec!["192.0.2.9/32".parse().unwrap()]));
    let guard = Guard::new(None, limit("1/h", 1), proxies);
    let behind = |line: &[u8]| {
        HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_bytes(line).unwrap())])
    };
    assert_eq!(admit(&guard, &behind(b"203.0.113.1"), 9, Access::Use), Ok(()));
    let refused = admit(&guard, &behind(b"\xff, 203.0.113.1"), 9, Access::Use);
    assert!(matches!(refused, Err(Refused::TooFast { .. })), "{refused:?}");
}

#[test]
fn each_message_of_a_stream_counts() {
    let guard = Guard::new(None, limit("1/h", 3), TrustedProxies::default());
    let admitted = guard.admit(&HeaderMap::new(), peer(1), Access::Use).unwrap().unwrap();
    assert!(admitted.again().is_ok() && admitted.again().is_ok());
    assert!(matches!(admitted.again(), Err(Refused::TooFast { .. })));
    assert!(matches!(admit(&guard, &HeaderMap::new(), 1, Access::Use), Err(Refused::TooFast { .. })));
}

#[test]
fn a_refusal_says_what_is_allowed_and_when() {
    let guard = Guard::new(None, limit("30/min", 1), TrustedProxies::default());
    let ask = || admit(&guard, &HeaderMap::new(), 1, Access::Use);
    ask().unwrap();
    let text = ask().unwrap_err().to_string();
    assert!(text.starts_with("this client may send 1 at once, and 30/min after that; try again in "));
}
