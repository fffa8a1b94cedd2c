//! `grpc-timeout`: how long the client of a call waits.

use std::time::Duration;

use axum::http::HeaderMap;

const HEADER: &str = "grpc-timeout";
/// Digits of a value, at most, as the protocol has it.
const DIGITS_MAX: usize = 8;

/// What the client says; nothing where it says nothing that can be read, which waits as long as the settings allow.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let of = |text: &str| timeout(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]));
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for text in ["", "S", "1", "123456789S", "1s", "-1S", "1.5S", "+1S", " 1S"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
