use std::collections::HashSet;

use super::*;

fn parts(ratio: f64) -> Parts {
    let settings = TraceSettings::new("http://127.0.0.1:9", ratio, |_| None).unwrap();
    Parts {
        exporter: Exporter::start(settings, &Metrics::new()).unwrap(),
        ids_below: ids_below(ratio),
        ids: Mutex::new(Ids::new()),
    }
}

fn parent(sampled: bool) -> Parent {
    Parent { trace_id: TraceId(7), span_id: SpanId(8), sampled, state: String::new() }
}

#[test]
fn a_request_without_a_parent_is_sampled_by_the_ratio() {
    let now = Instant::now();
    for (ratio, expected) in [(0.0, 0..=0), (0.25, 2200..=2800), (1.0, 10_000..=10_000)] {
        let parts = parts(ratio);
        let sampled = (0..10_000).filter(|_| parts.sample(None, now).is_some()).count();
        assert!(expected.contains(&sampled), "{ratio}: {sampled}");
    }
}

#[test]
fn the_parent_decides_whatever_the_ratio() {
    let now = Instant::now();
    for ratio in [0.0, 1.0] {
        let parts = parts(ratio);
        assert!(parts.sample(Some(&parent(false)), now).is_none());
        let sampled = parts.sample(Some(&parent(true)), now).unwrap();
        assert_eq!(sampled.trace_id, TraceId(7));
        assert_ne!(sampled.span_id, SpanId(8));
    }
}

#[test]
fn ids_are_never_the_same() {
    let mut ids = Ids::new();
    let seen: HashSet<u128> = (0..10_000).map(|_| ids.trace().0).collect();
    assert_eq!(seen.len(), 10_000);
    assert_ne!(Ids::new().trace(), Ids::new().trace());
}

#[test]
fn without_a_collector_a_client_s_trace_is_for_the_log_alone() {
    let mut headers = HeaderMap::new();
    let tracer = Tracer::default();
    let none = tracer.begin(&headers, Instant::now());
    assert_eq!((none.trace_id(), none.span_id()), (None, None));
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    let trace = tracer.begin(&headers, Instant::now());
    assert_eq!(trace.trace_id().unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace.span_id(), None);
    tracer.end(trace, || panic!("nothing is built for nobody"));
}
