"""What Triton's client does over gRPC only: streams, typed contents, compression, deadlines, asyncio; and the standard
services beside it, health and reflection."""
import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import oracle
from oracle import CLASSES, MODEL, PHOTOS

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def channel(running):
    with grpc.insecure_channel(running.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    """The service without a client around it."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def client(running):
    with triton.InferenceServerClient(running.grpc) as client:
        yield client


def tensor(values):
    name, datatype = ("image", "BYTES") if values.dtype == np.object_ else ("input", "FP32")
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


def photo(picture):
    return tensor(np.array([picture], np.object_))


def typed(samples, **members):
    """A request whose values are numbers of the message and not raw bytes."""
    request = service_pb2.ModelInferRequest(model_name=MODEL, **members)
    image = request.inputs.add(name="input", datatype="FP32", shape=samples.shape)
    image.contents.fp32_contents.extend(samples.ravel().tolist())
    return request


def scores(response):
    """The only output of an answer, raw or typed."""
    (output,) = response.outputs
    values = (
        np.frombuffer(response.raw_output_contents[0], "<f4") if response.raw_output_contents else output.contents.fp32_contents
    )
    return np.reshape(np.array(values, np.float32), output.shape)


# --- one call


def test_typed_contents_get_the_answer_of_raw_ones(client, stub):
    samples = oracle.random_samples(2)
    response = stub.ModelInfer(typed(samples, id="t"))
    assert response.id == "t" and response.model_name == MODEL and response.model_version == "1"
    assert np.array_equal(scores(response), client.infer(MODEL, [tensor(samples)]).as_numpy("logits"))


def test_photos_in_typed_contents(stub, cat):
    request = service_pb2.ModelInferRequest(model_name=PHOTOS)
    image = request.inputs.add(name="image", datatype="BYTES", shape=[2])
    image.contents.bytes_contents.extend([cat, cat])
    outputs = {output.name: list(output.shape) for output in stub.ModelInfer(request).outputs}
    assert outputs == {"probabilities": [2, CLASSES], "class_index": [2, 1], "label": [2, 1]}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_messages_may_be_compressed(client, coding):
    samples = oracle.random_samples(2)
    plain = client.infer(MODEL, [tensor(samples)]).as_numpy("logits")
    assert np.array_equal(client.infer(MODEL, [tensor(samples)], compression_algorithm=coding).as_numpy("logits"), plain)


def test_parameters_of_every_type_of_the_message_come_back(client, cat):
    sent = {"camera": "north", "attempt": 3, "certain": True, "weight": 0.5}
    told = client.infer(PHOTOS, [photo(cat)], parameters=sent).get_response().parameters
    assert {name: getattr(told[name], told[name].WhichOneof("parameter_choice")) for name in sent} == sent


def test_a_deadline_ends_the_call(client, cat):
    with pytest.raises(InferenceServerException) as raised:
        client.infer(PHOTOS, [photo(cat)], client_timeout=1e-5)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert client.infer(PHOTOS, [photo(cat)], client_timeout=30).as_numpy("label")[0, 0] == b"cat"


def test_a_call_may_be_cancelled(client, cat):
    answered = queue.Queue()
    calls = [client.async_infer(PHOTOS, [photo(cat)], lambda result, error: answered.put((result, error))) for _ in range(50)]
    for call in calls:
        call.cancel()
    for _ in calls:
        result, error = answered.get(timeout=30)
        assert result is not None or error.status() == "StatusCode.CANCELLED", error
    assert client.infer(PHOTOS, [photo(cat)]).as_numpy("label")[0, 0] == b"cat"


def test_many_calls_at_once(client):
    samples = oracle.random_samples(32)
    answered = queue.Queue()
    for at in range(32):
        client.async_infer(
            MODEL, [tensor(samples[at : at + 1])], lambda result, error: answered.put((result, error)), request_id=str(at)
        )
    found = {}
    for _ in range(32):
        result, error = answered.get(timeout=30)
        assert error is None, error
        found[int(result.get_response().id)] = result.as_numpy("logits")[0]
    np.testing.assert_allclose([found[at] for at in range(32)], oracle.logits(samples), atol=1e-4)


# --- streams


class Stream:
    """Requests go in one after the other; answers and errors come out of a queue."""

    def __init__(self, client):
        self.client, self.answers = client, queue.Queue()

    def __enter__(self):
        self.client.start_stream(callback=lambda result, error: self.answers.put((result, error)))
        return self

    def __exit__(self, *_):
        self.client.stop_stream()

    def send(self, model, *tensors, **options):
        self.client.async_stream_infer(model, list(tensors), **options)

    def next(self):
        return self.answers.get(timeout=30)


def test_a_stream_answers_in_order_and_survives_an_error(client, cat):
    with Stream(client) as stream:
        for turn in range(10):
            stream.send(PHOTOS if turn != 4 else "nobody", photo(cat), request_id=str(turn))
        for turn in range(10):
            result, error = stream.next()
            if turn == 4:
                assert result is None and "nobody" in error.message()
            else:
                assert error is None and result.get_response().id == str(turn)
                assert result.as_numpy("label")[0, 0] == b"cat"


def test_a_closed_stream_gives_all_that_it_owes(client):
    samples = oracle.random_samples(40)
    with Stream(client) as stream:
        for at in range(40):
            stream.send(MODEL, tensor(samples[at : at + 1]))
    # stop_stream has closed this half and come back when the server closed the other.
    answers = [stream.answers.get_nowait() for _ in range(40)]
    assert all(error is None for _, error in answers)
    found = np.concatenate([result.as_numpy("logits") for result, _ in answers])
    np.testing.assert_allclose(found, oracle.logits(samples), atol=1e-4)


def test_a_stream_that_is_dropped_leaves_the_server_as_it_was(client, running, cat):
    with triton.InferenceServerClient(running.grpc) as rude:
        rude.start_stream(callback=lambda result, error: None)
        for _ in range(200):
            rude.async_stream_infer(PHOTOS, [photo(cat)])
        rude.stop_stream(cancel_requests=True)
    assert client.infer(PHOTOS, [photo(cat)]).as_numpy("label")[0, 0] == b"cat"


# --- asyncio


def test_calls_and_streams_from_asyncio(running, cat):
    samples = oracle.random_samples(16)

    async def main():
        async with triton_aio.InferenceServerClient(running.grpc) as client:
            assert await client.is_server_ready() and await client.is_model_ready(MODEL)
            calls = (client.infer(MODEL, [tensor(samples[at : at + 1])]) for at in range(16))
            found = np.concatenate([answer.as_numpy("logits") for answer in await asyncio.gather(*calls)])
            np.testing.assert_allclose(found, oracle.logits(samples), atol=1e-4)

            async def requests():
                for model in (PHOTOS, "nobody", PHOTOS):
                    yield {"model_name": model, "inputs": [photo(cat)]}

            answers = [answer async for answer in client.stream_infer(requests())]
            assert [error is None for _, error in answers] == [True, False, True]
            assert answers[2][0].as_numpy("label")[0, 0] == b"cat"

    asyncio.run(main())


# --- what stands beside it


def test_the_standard_health_service(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    watched = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()


def messages_of(service):
    """Every message that the calls of a service can reach, by name."""
    found = {}

    def walk(message):
        if message.full_name not in found:
            found[message.full_name] = message
            for field in message.fields:
                if field.message_type:
                    walk(field.message_type)

    for method in service.methods:
        walk(method.input_type)
        walk(method.output_type)
    return found


def wire_form(message):
    """Number, type and repetition of each field: what has to agree for two programs to understand each other."""
    return {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}


def test_reflection_tells_messages_with_the_fields_that_triton_gives_them(channel):
    """A field under another number would be lost without a word."""
    reflected = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(reflected.get_services())
    ours = DescriptorPool(reflected).FindServiceByName(SERVICE)
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in ours.methods:
        same = theirs.methods_by_name[method.name]
        assert (method.client_streaming, method.server_streaming) == (same.client_streaming, same.server_streaming)
    known = messages_of(theirs)
    for name, message in messages_of(ours).items():
        fields = wire_form(known[name])
        assert wire_form(message).items() <= fields.items(), name
        # Of the config of a model we tell a part; everything else is whole.
        assert name.startswith("inference.Model") or len(message.fields) == len(fields), name


def test_calls_that_are_not_offered_are_unimplemented(stub):
    with pytest.raises(grpc.RpcError) as raised:
        stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest())
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
