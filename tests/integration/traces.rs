//! Traces of requests, as a collector gets them.

use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use reqwest::multipart::{Form, Part};

use crate::collector::{Collector, Span};
use crate::support::{TestServer, photo, send};

pub(crate) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(crate) const PARENT: &str = "b7ad6b7169203331";
const STAGES: [&str; 5] = ["decode", "preprocess", "queue", "infer", "postprocess"];

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// A server with this collector, and further flags.
async fn traced(collector: &Collector, flags: &[&str]) -> TestServer {
    TestServer::start(&[&["--otlp-endpoint", collector.url.as_str()], flags].concat()).await
}

/// The span of the only request, and those of its stages.
fn one(mut spans: Vec<Span>) -> (Span, Vec<Span>) {
    let request = spans.remove(0);
    assert_eq!(request.kind, 2, "the first is the server's");
    assert!(spans.iter().all(|span| span.kind == 1 && span.parent_id() == request.id()), "{spans:?}");
    (request, spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_a_client_s_trace_has_a_span_for_itself_and_each_stage() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[]).await;
    let before = now();
    let request = server
        .post("/api/v1/classify")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=1")
        .header("x-request-id", "mine")
        .body(photo("cat.jpg"));
    assert_eq!(send(request).await.status, 200);
    let after = now();
    server.drain().await;
    let (request, stages) = one(collector.spans());
    assert_eq!((request.trace_id(), request.parent_id()), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((request.name.as_str(), request.state.as_str()), ("POST /api/v1/classify", "vendor=1"));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/v1/classify"),
        ("url.path", "/api/v1/classify"),
        ("http.response.status_code", "200"),
        ("residual.request_id", "mine"),
        ("residual.outcome", "ok"),
        ("residual.model.name", "resnet20-cifar10"),
        ("residual.model.version", "1"),
        ("error.type", ""),
    ] {
        assert_eq!(request.attribute(key), value, "{key}");
    }
    assert!(!request.is_error());
    assert_eq!(stages.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), STAGES);
    let mut at = request.began;
    for stage in &stages {
        assert_eq!((stage.trace_id(), stage.state.as_str()), (TRACE.to_owned(), "vendor=1"));
        // A microsecond: where a stage began is reckoned from how long it took.
        assert!(at <= stage.began + 1000 && stage.began <= stage.ended, "{} begins too early", stage.name);
        at = stage.ended;
    }
    assert!(at <= request.ended && before <= request.began && request.ended <= after, "{request:?}");
    let infer = &stages[3];
    assert_eq!(
        (infer.attribute("residual.batch_images"), infer.attribute("residual.provider")),
        ("1".into(), "cpu".into())
    );
    assert!(infer.ended > infer.began + 10_000, "a run takes longer than ten microseconds");
    let (headers, resource) = &collector.exports()[0];
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(
        (resource["service.name"].as_str(), resource["service.version"].as_str()),
        ("residual", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_decides_about_its_own_trace_and_the_ratio_about_the_others() {
    let collector = Collector::start().await;
    let server = traced(&collector, &["--trace-ratio", "0"]).await;
    let ask = |flags: &str| {
        server.client.get(server.url("/health/live")).header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"))
    };
    for request in [ask("00"), ask("0"), server.client.get(server.url("/health/live")), ask("01")] {
        assert_eq!(send(request).await.status, 200);
    }
    server.drain().await;
    let (request, stages) = one(collector.spans());
    assert_eq!((request.parent_id(), stages.len()), (PARENT.to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_s_trace_a_request_begins_one() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[]).await;
    server.get("/api/v1/models").await;
    let broken =
        server.client.get(server.url("/nothing/here")).header("traceparent", "00-broken").header("tracestate", "a=1");
    assert_eq!(send(broken).await.status, 404);
    server.drain().await;
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["GET /api/v1/models", "GET"]);
    assert!(
        spans.iter().all(|span| span.parent_id().is_empty() && span.state.is_empty() && span.trace_id().len() == 32)
    );
    assert_ne!(spans[0].trace_id(), spans[1].trace_id());
    assert_eq!((spans[1].attribute("error.type"), spans[1].is_error()), ("not_found".to_owned(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_server_is_an_error_and_a_client_s_is_not() {
    let collector = Collector::start().await;
    let server = traced(&collector, &["--model", "tests/models/nan"]).await;
    server.classify("no image").await.assert_problem(415, "not_an_image");
    server.classify(photo("cat.jpg")).await.assert_problem(500, "inference_failed");
    server.drain().await;
    let spans: Vec<Span> = collector.spans().into_iter().filter(|span| span.kind == 2).collect();
    let seen: Vec<_> = spans.iter().map(|span| (span.attribute("error.type"), span.is_error())).collect();
    assert_eq!(seen, [("not_an_image".to_owned(), false), ("inference_failed".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_share_a_span_a_stage_from_the_first_to_the_last() {
    let collector = Collector::start().await;
    let server = traced(&collector, &["--decode-threads", "1"]).await;
    let form =
        (0..4).fold(Form::new(), |form, _| form.part("image", Part::bytes(photo("cat.jpg")).file_name("cat.jpg")));
    let answer = send(server.post("/api/v1/classify").multipart(form)).await;
    assert_eq!(answer.json["results"].as_array().unwrap().len(), 4);
    let longest = answer.header("server-timing").split("preprocess;dur=").nth(1).unwrap();
    let longest: f64 = longest.split(',').next().unwrap().parse().unwrap();
    server.drain().await;
    let (request, stages) = one(collector.spans());
    assert_eq!(stages.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), STAGES);
    assert!(stages.iter().all(|stage| request.began <= stage.began && stage.ended <= request.ended));
    // One after the other on one thread: all of them together take longer than the longest of them.
    let preprocess = (stages[1].ended - stages[1].began) as f64 / 1e6;
    assert!(preprocess > longest, "{preprocess} ms is no longer than {longest} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_nothing_costs_spans_and_no_request() {
    let refusing = Collector::answering(StatusCode::NOT_FOUND).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [refusing.url.clone(), format!("http://{closed}")] {
        let server = TestServer::start(&["--otlp-endpoint", &url]).await;
        for _ in 0..20 {
            assert_eq!(server.get("/health/live").await.status, 200);
        }
        if url == refusing.url {
            // It is asked after a second, and what it refuses is not sent again.
            let lost = r#"residual_spans_dropped_total{reason="export_failed"}"#;
            let wait = async { while server.metric(lost).await < 20.0 {} };
            tokio::time::timeout(crate::support::PATIENCE, wait).await.unwrap();
        }
        let started = Instant::now();
        server.drain().await;
        assert!(started.elapsed() < Duration::from_secs(20), "stopping waits for no collector");
    }
}
