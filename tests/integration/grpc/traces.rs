//! Calls in a trace.

use tonic::Request;

use super::client::{client, samples};
use crate::collector::Collector;
use crate::support::TestServer;
use crate::traces::{PARENT, TRACE};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_a_client_s_trace_has_its_spans() {
    let collector = Collector::start().await;
    let server = TestServer::start(&["--otlp-endpoint", &collector.url, "--trace-ratio", "0"]).await;
    let mut client = client(server.grpc_address()).await;
    let traced = |request| {
        let mut request = Request::new(request);
        let parent = format!("00-{TRACE}-{PARENT}-01").parse().unwrap();
        request.metadata_mut().insert("traceparent", parent);
        request
    };
    client.model_infer(traced(samples(&[0.5, 0.1]))).await.unwrap();
    let mut unknown = samples(&[0.5]);
    unknown.model_name = "nothing".to_owned();
    client.model_infer(traced(unknown)).await.unwrap_err();
    client.model_infer(samples(&[0.5])).await.unwrap();
    server.drain().await;
    let spans = collector.spans();
    let (calls, stages): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.kind == 2);
    for call in &calls {
        assert_eq!((call.trace_id(), call.parent_id()), (TRACE.to_owned(), PARENT.to_owned()));
        assert_eq!(call.name, "inference.GRPCInferenceService/ModelInfer");
        assert_eq!(call.attribute("rpc.method"), call.name);
        assert_eq!(call.attribute("rpc.system.name"), "grpc");
    }
    let statuses: Vec<_> =
        calls.iter().map(|call| (call.attribute("rpc.response.status_code"), call.is_error())).collect();
    assert_eq!(statuses, [("OK".to_owned(), false), ("NOT_FOUND".to_owned(), false)]);
    // A tensor is not decoded.
    assert_eq!(stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>(), ["queue", "infer", "postprocess"]);
    assert!(stages.iter().all(|stage| stage.parent_id() == calls[0].id()));
    assert_eq!(calls[0].attribute("residual.model.name"), "resnet20-cifar10");
}
