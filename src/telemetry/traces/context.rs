//! W3C Trace Context (Recommendation, 2021, read as its Level 2 draft also asks): `traceparent` and `tracestate`. A
//! `traceparent` with any fault is as good as none, and its `tracestate` goes with it.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::{SpanId, TraceId};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const TRACEPARENT_LEN: usize = 55;
/// Entries of a `tracestate`, as the Recommendation has it.
const STATE_MEMBERS_MAX: usize = 32;
/// The Recommendation wants at least this much to be passed on. It is kept until the span is exported, so no more is.
const STATE_LEN_MAX: usize = 512;
/// The lowest bit of the flags: the caller may have recorded its own span.
const SAMPLED: u8 = 1;

/// The span of the client that this request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) sampled: bool,
    /// What vendors want to be passed on; empty if there is nothing, or if it is broken.
    pub(super) state: String,
}

impl Parent {
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        // Two of them leave open which is meant.
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (trace_id, span_id, flags) = traceparent(value.as_bytes())?;
        let state = tracestate(headers.get_all(TRACESTATE).iter()).unwrap_or_default();
        Some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0, state })
    }
}

fn traceparent(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (known, rest) = value.split_at_checked(TRACEPARENT_LEN)?;
    let [version, trace, parent, flags] = fields(known)?;
    let version = hex(version)?;
    // Later versions may have more behind a dash; 255 is none.
    let ends_well = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    if version == 0xff || !ends_well {
        return None;
    }
    let (trace_id, span_id) = (hex(trace)?, u64::try_from(hex(parent)?).ok()?);
    let flags = u8::try_from(hex(flags)?).ok()?;
    (trace_id != 0 && span_id != 0).then_some((TraceId(trace_id), SpanId(span_id), flags))
}

/// The four fields of a text of [`TRACEPARENT_LEN`] bytes.
fn fields(known: &[u8]) -> Option<[&[u8]; 4]> {
    let dashes = [known[2], known[35], known[52]] == *b"---";
    dashes.then(|| [&known[..2], &known[3..35], &known[36..52], &known[53..]])
}

/// Hexadecimal digits in lower case, as the Recommendation has them and Rust's own parsers do not ask for.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// All headers of that name as one list, or nothing if one entry is broken.
fn tracestate<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Option<String> {
    let values: Vec<&str> = values.map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    let all = values.join(",");
    let members: Vec<&str> =
        all.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()).collect();
    let pairs: Vec<(&str, &str)> = members.iter().map(|member| member.split_once('=')).collect::<Option<_>>()?;
    let valid = pairs.iter().all(|(key, value)| is_key(key) && is_value(value));
    let once = pairs.iter().map(|(key, _)| key).collect::<HashSet<_>>().len() == pairs.len();
    let state = members.join(",");
    (valid && once && pairs.len() <= STATE_MEMBERS_MAX && state.len() <= STATE_LEN_MAX).then_some(state)
}

/// `vendor`, or `tenant@vendor`.
fn is_key(key: &str) -> bool {
    let is_rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/".contains(c);
    let is_name = |name: &str, first: fn(char) -> bool, len_max: usize| {
        name.starts_with(first) && name.len() <= len_max && name.chars().all(is_rest)
    };
    let letter = |c: char| c.is_ascii_lowercase();
    match key.split_once('@') {
        None => is_name(key, letter, 256),
        Some((tenant, vendor)) => {
            is_name(tenant, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), 241) && is_name(vendor, letter, 14)
        }
    }
}

/// Visible characters and spaces but for the two that separate; no space at the end.
fn is_value(value: &str) -> bool {
    let is_valid = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(is_valid) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(parents: &[&str], states: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in states {
            headers.append(TRACESTATE, HeaderValue::from_str(state).unwrap());
        }
        Parent::read(&headers)
    }

    #[test]
    fn a_sound_parent_is_taken_over() {
        let parent = read(&[&format!("00-{TRACE}-{SPAN}-01")], &["rojo=00f067aa0ba902b7"]).unwrap();
        assert_eq!((parent.trace_id.to_string(), parent.span_id.to_string()), (TRACE.to_owned(), SPAN.to_owned()));
        assert_eq!((parent.sampled, parent.state.as_str()), (true, "rojo=00f067aa0ba902b7"));
        assert!(!read(&[&format!("00-{TRACE}-{SPAN}-00")], &[]).unwrap().sampled);
        // Bits that are not known yet say nothing.
        assert!(!read(&[&format!("00-{TRACE}-{SPAN}-fe")], &[]).unwrap().sampled);
        // A later version is read as far as it is known.
        assert!(read(&[&format!("cc-{TRACE}-{SPAN}-01")], &[]).unwrap().sampled);
        assert!(read(&[&format!("01-{TRACE}-{SPAN}-01-what-the-future-brings")], &[]).is_some());
    }

    #[test]
    fn a_parent_with_a_fault_is_none() {
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("01-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}+{SPAN}-01"),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(read(&[&bad], &[]), None, "{bad:?}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(read(&[&good, &good], &[]), None);
        assert_eq!(read(&[], &["a=1"]), None);
    }

    #[test]
    fn a_state_is_one_list_of_sound_entries() {
        let state = |states: &[&str]| read(&[&format!("00-{TRACE}-{SPAN}-01")], states).unwrap().state;
        assert_eq!(state(&["a=1, b=2 x", "t0@v=3", ""]), "a=1,b=2 x,t0@v=3");
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=1")).collect();
        assert_eq!(state(&[&many[..32].join(",")]), many[..32].join(","));
        let long = format!("a={}", "1".repeat(256));
        for bad in ["a", "a=", "=1", "A=1", "1a=1", "a=1,a=2", "a=b=c", "a@=1", "a@1=2", "@a=1", &many.join(",")] {
            assert_eq!(state(&[bad]), "", "{bad:?}");
        }
        assert_eq!(state(&[&long]), long);
        assert_eq!(state(&[&format!("{long}1")]), "");
        assert_eq!(state(&[&long, &format!("b={}", "1".repeat(256))]), "", "longer than what is kept");
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(bytes: Vec<u8>, state: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let (Ok(parent), Ok(state)) = (HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(&state)) {
                headers.insert(TRACEPARENT, parent);
                headers.insert(TRACESTATE, state);
            }
            // A random text is never a trace.
            prop_assert!(Parent::read(&headers).is_none());
        }

        #[test]
        fn whatever_is_read_is_written_the_same(trace in 1_u128.., span in 1_u64.., flags: u8) {
            let parent = read(&[&format!("00-{}-{}-{flags:02x}", TraceId(trace), SpanId(span))], &[]).unwrap();
            prop_assert_eq!((parent.trace_id, parent.span_id), (TraceId(trace), SpanId(span)));
            prop_assert_eq!(parent.sampled, flags % 2 == 1);
        }
    }
}
