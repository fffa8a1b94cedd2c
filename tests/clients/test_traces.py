"""Traces, decoded with OpenTelemetry's own messages, out of a trace that its SDK began."""
import http.server
import threading

import pytest
import requests
from conftest import served
from opentelemetry import propagate
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider

STAGES = ["decode", "preprocess", "queue", "infer", "postprocess"]


@pytest.fixture
def collector():
    """Address of a collector, and the requests that came to it."""
    exports = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            exports.append((self.path, dict(self.headers), body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", exports
    server.shutdown()
    thread.join()


def value(attribute):
    return getattr(attribute.value, attribute.value.WhichOneof("value"))


def attributes(holder):
    return {attribute.key: value(attribute) for attribute in holder.attributes}


def test_spans_join_the_trace_of_the_client(collector, cat):
    address, exports = collector
    tracer = TracerProvider().get_tracer("test")
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s%3Dcret",
        "OTEL_SERVICE_NAME": "photos",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with served(**variables) as running:
        with tracer.start_as_current_span("client") as client:
            headers = {}
            propagate.inject(headers)
            answer = requests.post(f"{running.url}/api/v1/classify", data=cat, headers=headers, timeout=60)
            assert answer.status_code == 200
    assert exports, "nothing was exported when the server ended"
    path, headers, body = exports[0]
    assert path == "/v1/traces" and headers["x-key"] == "s=cret"
    export = ExportTraceServiceRequest.FromString(body)
    # Whatever a field number or a wire type had wrong would be unknown, dropped here, and missing there.
    export_known = ExportTraceServiceRequest.FromString(body)
    export_known.DiscardUnknownFields()
    assert export_known.SerializeToString(deterministic=True) == export.SerializeToString(deterministic=True)
    (resource_spans,) = export.resource_spans
    resource = attributes(resource_spans.resource)
    assert resource["service.name"] == "photos" and resource["deployment.environment.name"] == "test"
    (scope_spans,) = resource_spans.scope_spans
    request, *stages = scope_spans.spans
    context = client.get_span_context()
    assert request.trace_id == context.trace_id.to_bytes(16, "big")
    assert request.parent_span_id == context.span_id.to_bytes(8, "big")
    assert request.kind == Span.SPAN_KIND_SERVER and request.name == "POST /api/v1/classify"
    assert request.status.code == Status.STATUS_CODE_UNSET
    told = attributes(request)
    assert told["http.response.status_code"] == 200 and told["residual.model.name"] == "resnet20-cifar10"
    assert [span.name for span in stages] == STAGES
    for span in stages:
        assert span.parent_span_id == request.span_id and span.kind == Span.SPAN_KIND_INTERNAL
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    # The client's own clock saw the request begin and end.
    assert client.start_time <= request.start_time_unix_nano and request.end_time_unix_nano <= client.end_time


def test_a_client_that_is_not_sampled_is_left_alone(collector, cat):
    address, exports = collector
    with served("--otlp-endpoint", address) as running:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        headers = {"traceparent": parent}
        assert requests.post(f"{running.url}/api/v1/classify", data=cat, headers=headers, timeout=60).ok
    assert not exports


def test_a_protocol_that_is_not_spoken_sends_nothing(collector, cat):
    address, exports = collector
    with served(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_PROTOCOL="grpc") as running:
        assert requests.post(f"{running.url}/api/v1/classify", data=cat, timeout=60).ok
    assert not exports
