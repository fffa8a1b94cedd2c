//! How values of settings are written: numbers in a range, times and sizes with their units, paths of routes.

use axum::http::Uri;
use bytesize::ByteSize;
use clap::builder::RangedU64ValueParser;
use humantime::Duration as Time;

use super::limits;

pub(crate) fn count(min: u64, max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=max)
}

pub(super) fn duration(text: &str) -> Result<Time, String> {
    text.parse()
        .map_err(|error: humantime::DurationError| format!("{error}; write a time with its unit: 250ms, 10s, 2min"))
}

pub(crate) fn positive_duration(text: &str) -> Result<Time, String> {
    duration(text).and_then(|value| if value.is_zero() { Err("must be above 0s".to_owned()) } else { Ok(value) })
}

/// A path that a route can have as it is: the router gives braces a meaning of their own.
pub(super) fn route(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !"{}*?#%".contains(c);
    if text.starts_with('/') && text.chars().all(is_plain) && !text.contains("/:") {
        Ok(text.to_owned())
    } else {
        Err("write a path that begins with a slash and has no spaces, braces, '*', '?', '#', '%' or \"/:\"".to_owned())
    }
}

pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|_| "write a size with its unit: 512KiB, 20MiB, 1GiB".to_owned())?;
    if size.as_u64() == 0 { Err("must be above 0".to_owned()) } else { Ok(size) }
}

/// A size that the head of a gRPC message can say.
pub(super) fn message_size(text: &str) -> Result<ByteSize, String> {
    let size = size(text)?;
    let max = limits::GRPC_MESSAGE_BYTES_LIMIT;
    if size > max { Err(format!("must be at most {}, as protobuf has it", size_text(max))) } else { Ok(size) }
}

/// Part of a whole.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 0 to 1: 0.01".to_owned())
}

/// Where a collector takes traces. Secrets have no place in a flag, which every process of the machine can see.
pub(super) fn collector(text: &str) -> Result<String, String> {
    let wanted =
        "write http://HOST:PORT or https://HOST:PORT, with a path if the collector has one; no user, query or fragment";
    let uri: Uri = text.parse().map_err(|_| wanted.to_owned())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && !text.contains(['@', '#']) && uri.host().is_some_and(|host| !host.is_empty());
    if is_http && plain { Ok(text.to_owned()) } else { Err(wanted.to_owned()) }
}

/// A size as people write it on a command line: `20MiB`, without the space that would need quotes.
pub(super) fn size_text(size: ByteSize) -> String {
    size.to_string().replace(".0 ", "").replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_need_a_number_above_zero() {
        assert_eq!(size("20MiB"), Ok(ByteSize::mib(20)));
        assert_eq!(size(&size_text(ByteSize::mib(20))), Ok(ByteSize::mib(20)));
        assert!(size("twenty").unwrap_err().contains("20MiB"));
        assert_eq!(size("0").unwrap_err(), "must be above 0");
        assert_eq!(message_size("2GiB"), Ok(ByteSize::gib(2)));
        assert_eq!(message_size("2049MiB").unwrap_err(), "must be at most 2GiB, as protobuf has it");
        assert_eq!(duration("250ms").map(|time| time.as_millis()), Ok(250));
        assert!(duration("250").unwrap_err().contains("with its unit"));
        assert_eq!(positive_duration("0s").unwrap_err(), "must be above 0s");
    }

    #[test]
    fn ratios_lie_between_none_and_all() {
        assert_eq!([ratio("0"), ratio("0.01"), ratio("1")], [Ok(0.0), Ok(0.01), Ok(1.0)]);
        for bad in ["-0.1", "1.01", "NaN", "inf", "", "1%"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_is_an_address_without_secrets() {
        for good in ["http://collector:4318", "https://[::1]:4318/otlp", "http://10.0.0.1/v1/traces"] {
            assert_eq!(collector(good).as_deref(), Ok(good));
        }
        for bad in ["collector:4318", "grpc://collector", "http://", "http://u:p@c", "http://c/?key=1", "http://c/#a"] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }
}
