"""KServe's own inference clients, unchanged: protocol v1 and v2 over REST, and gRPC."""
import asyncio
import base64

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest import v2_datamodels

import oracle
from oracle import CAT, CLASSES, MODEL, PHOTOS


def rest(protocol):
    return InferenceRESTClient(RESTConfig(protocol=protocol))


def tensor(values, binary=True):
    name, datatype = ("image", "BYTES") if values.dtype == np.object_ else ("input", "FP32")
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def photo(picture):
    return tensor(np.array([picture], np.object_))


def output(answer, name):
    return answer.get_output_by_name(name).as_numpy()


def test_v1(server, cat):
    async def main():
        async with rest("v1") as client:
            assert await client.is_server_live(server)
            assert await client.is_model_ready(server, MODEL)
            instance = {"b64": base64.b64encode(cat).decode()}
            answer = await client.infer(server, {"instances": [instance, instance]}, model_name=MODEL)
            first, second = answer["predictions"]
            assert first == second
            for call in (
                client.is_model_ready(server, "nobody"),
                client.infer(server, {"instances": [instance]}, model_name="nobody"),
            ):
                with pytest.raises(httpx.HTTPStatusError) as raised:
                    await call
                assert raised.value.response.status_code == 404 and "nobody" in str(raised.value)
            with pytest.raises(httpx.HTTPStatusError) as raised:
                await client.infer(server, {"instances": []}, model_name=MODEL)
            assert raised.value.response.status_code == 400

    asyncio.run(main())


def test_v2(server, cat):
    samples = oracle.random_samples(3)

    async def main():
        async with rest("v2") as client:
            assert await client.is_server_live(server) is True and await client.is_server_ready(server) is True
            assert await client.is_model_ready(server, MODEL) and not await client.is_model_ready(server, "nobody")

            found = []
            for binary_in, binary_out in ((True, True), (True, False), (False, True), (False, False)):
                request = InferRequest(
                    MODEL, [tensor(samples, binary_in)], request_id="k", parameters={"binary_data_output": binary_out}
                )
                answer = await client.infer(server, request, model_name=MODEL)
                assert answer.id == "k" and answer.model_name == MODEL
                found.append(output(answer, "logits"))
            assert all(np.array_equal(scores, found[0]) for scores in found)
            np.testing.assert_allclose(found[0], oracle.logits(samples), atol=1e-4)

            request = InferRequest(PHOTOS, [photo(cat)], request_outputs=[RequestedOutput("class_index", {"binary_data": True})])
            answer = await client.infer(server, request, model_name=PHOTOS)
            assert [tensor.name for tensor in answer.outputs] == ["class_index"] and output(answer, "class_index")[0, 0] == CAT

            with pytest.raises(httpx.HTTPStatusError) as raised:
                await client.infer(server, InferRequest(MODEL, [tensor(samples[0])]), model_name=MODEL)
            # The client shows our sentence only where the content type is application/json and nothing else.
            assert raised.value.response.status_code == 400 and "[3" in str(raised.value)

    asyncio.run(main())


def test_v2_documents_are_what_kserve_defines(server):
    """KServe's own types read each document."""
    samples = oracle.random_samples(1)
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": samples.ravel().tolist()}
    for path, kind in (
        ("/v2", v2_datamodels.ServerMetadataResponse),
        ("/v2/health/live", v2_datamodels.ServerLiveResponse),
        ("/v2/health/ready", v2_datamodels.ServerReadyResponse),
        ("/v2/models", v2_datamodels.ListModelsResponse),
        (f"/v2/models/{MODEL}", v2_datamodels.ModelMetadataResponse),
        (f"/v2/models/{MODEL}/versions/1", v2_datamodels.ModelMetadataResponse),
        (f"/v2/models/{PHOTOS}", v2_datamodels.ModelMetadataResponse),
        (f"/v2/models/{MODEL}/ready", v2_datamodels.ModelReadyResponse),
    ):
        kind.model_validate(httpx.get(server + path).raise_for_status().json())
    assert {MODEL, PHOTOS} <= set(httpx.get(f"{server}/v2/models").json()["models"])
    answer = httpx.post(f"{server}/v2/models/{MODEL}/infer", json={"id": "k", "inputs": [tensor]}).raise_for_status()
    read = v2_datamodels.InferenceResponse.model_validate(answer.json())
    assert read.id == "k" and read.outputs[0].shape == [1, CLASSES]


def test_grpc(running, cat):
    samples = oracle.random_samples(3)

    async def main():
        async with InferenceGRPCClient(running.grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready(MODEL)
            found = []
            for binary in (True, False):
                answer = await client.infer(InferRequest(MODEL, [tensor(samples, binary)], request_id="k"))
                assert answer.id == "k" and answer.model_version == "1"
                found.append(output(answer, "logits"))
            assert np.array_equal(*found)
            np.testing.assert_allclose(found[0], oracle.logits(samples), atol=1e-4)

            answer = await client.infer(InferRequest(PHOTOS, [photo(cat)]))
            assert output(answer, "probabilities").shape == (1, CLASSES) and output(answer, "label")[0, 0] == b"cat"

            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.infer(InferRequest("nobody", [photo(cat)]))
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(main())
