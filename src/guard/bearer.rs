//! The key that a request carries, RFC 6750 section 2.1.

use axum::http::{HeaderMap, header};

/// What the `Authorization` header, or metadata of that name, holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bearer<'a> {
    /// There is none.
    Missing,
    /// Another scheme, no key, or several headers: which of them counts would be anybody's guess.
    Malformed,
    /// A key, right or wrong.
    Given(&'a [u8]),
}

impl<'a> Bearer<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Missing };
        if values.next().is_some() {
            return Self::Malformed;
        }
        let value = value.as_bytes().trim_ascii();
        let Some(space) = value.iter().position(|&byte| byte == b' ') else { return Self::Malformed };
        let (scheme, key) = value.split_at(space);
        let key = key.trim_ascii_start();
        // Schemes are told apart without regard to case (RFC 9110, section 11.1).
        if scheme.eq_ignore_ascii_case(b"bearer") && !key.contains(&b' ') { Self::Given(key) } else { Self::Malformed }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_stands_behind_its_scheme_whatever_the_case() {
        for value in ["Bearer k3y", "bearer k3y", "BEARER   k3y", " Bearer k3y "] {
            assert_eq!(Bearer::of(&headers(&[value])), Bearer::Given(b"k3y"), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_single_key_is_not_guessed_at() {
        for values in [&["Bearer"][..], &["Basic k3y"], &["k3y"], &["Bearer a b"], &["Bearer a", "Bearer b"], &[""]] {
            assert_eq!(Bearer::of(&headers(values)), Bearer::Malformed, "{values:?}");
        }
        assert_eq!(Bearer::of(&HeaderMap::new()), Bearer::Missing);
    }
}
