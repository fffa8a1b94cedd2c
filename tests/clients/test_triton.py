"""NVIDIA's Triton client, unchanged, over HTTP and over gRPC. What only one of them has is in the files beside this one."""
import shutil

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

import oracle
from conftest import TINY, served
from oracle import CAT, CLASSES, LABELS, MODEL, PHOTOS
from triton import Wire, described, photos


@pytest.fixture(params=["http", "grpc"])
def wire(request, running):
    with Wire(request.param, running) as wire:
        yield wire


@pytest.fixture(params=["http", "grpc"])
def tiny_wire(request, tiny):
    with Wire(request.param, tiny) as wire:
        yield wire


def refusal(wire, *arguments, **options):
    """What kind of error the client raises, and its sentence."""
    with pytest.raises(InferenceServerException) as raised:
        wire.infer(*arguments, **options)
    return wire.status(raised.value), raised.value.message()


# --- what the server and its models say of themselves


def test_server_and_models_are_ready(wire):
    assert wire.client.is_server_live() and wire.client.is_server_ready()
    for model in (MODEL, PHOTOS):
        assert wire.client.is_model_ready(model) and wire.client.is_model_ready(model, "1")
        assert not wire.client.is_model_ready(model, "7")
    assert not wire.client.is_model_ready("nobody")


def test_the_extensions_are_those_that_work(wire):
    document = wire.client.get_server_metadata(**wire.as_json)
    assert document["name"] == "residual" and document["version"]
    told = set(document["extensions"])
    assert {"binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"} <= told
    assert not {"sequence", "system_shared_memory", "cuda_shared_memory", "trace", "logging"} & told


def test_a_model_shows_exactly_the_tensors_of_its_graph(wire):
    document = wire.metadata(MODEL)
    assert document["name"] == MODEL and document["versions"] == ["1"] and document["platform"]
    assert described(document["inputs"]) == [("input", "FP32", [-1, 3, 32, 32])]
    assert described(document["outputs"]) == [("logits", "FP32", [-1, CLASSES])]


def test_beside_it_stands_the_same_model_for_photos(wire):
    document = wire.metadata(PHOTOS)
    assert document["name"] == PHOTOS and document["versions"] == ["1"]
    assert described(document["inputs"]) == [("image", "BYTES", [-1, 1])]
    assert described(document["outputs"]) == [
        ("probabilities", "FP32", [-1, CLASSES]),
        ("class_index", "INT64", [-1, 1]),
        ("label", "BYTES", [-1, 1]),
    ]


def test_the_config_says_what_image_clients_ask(wire):
    config = wire.config(MODEL)
    assert config["name"] == MODEL and config["max_batch_size"] >= 1
    (image,), (scores,) = config["input"], config["output"]
    # With a batch size the config leaves the batch out of the dimensions.
    assert (image["name"], image["data_type"], image["format"]) == ("input", "TYPE_FP32", "FORMAT_NCHW")
    assert [int(length) for length in image["dims"]] == [3, 32, 32]
    assert (scores["name"], scores["data_type"]) == ("logits", "TYPE_FP32")
    assert [int(length) for length in scores["dims"]] == [CLASSES]
    assert scores["label_filename"]
    assert "dynamic_batching" in config


def test_the_config_of_photos_agrees_with_their_metadata(wire):
    config, metadata = wire.config(PHOTOS), wire.metadata(PHOTOS)
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    for configured, told in ((config["input"], metadata["inputs"]), (config["output"], metadata["outputs"])):
        assert [tensor["name"] for tensor in configured] == [tensor["name"] for tensor in told]


# --- tensors


@pytest.mark.parametrize("images", [1, 3, 20])
def test_tensors_get_the_scores_that_the_graph_gives(wire, images):
    samples = oracle.random_samples(images)
    scores = wire.infer(MODEL, {"input": samples}).as_numpy("logits")
    assert scores.shape == (images, CLASSES) and scores.dtype == np.float32
    # Two implementations of 20 convolutions in f32; scores are between 1 and 10.
    np.testing.assert_allclose(scores, oracle.logits(samples), atol=1e-4)


# Plain colours as each tiny model wants them: [N,4,4,3] of 0 to 255 to its own tensor.
CENTRED = lambda pixels: (pixels / 255 - 0.5) / 0.5
PLANES = lambda pixels: pixels.transpose(0, 3, 1, 2)
TENSORS = {
    "colours": ("logits", lambda pixels: PLANES(CENTRED(pixels)).astype(np.float32)),
    "nhwc": ("logits", lambda pixels: CENTRED(pixels).astype(np.float32)),
    "half": ("logits", lambda pixels: PLANES(CENTRED(pixels)).astype(np.float16)),
    "bytes": ("logits", lambda pixels: pixels.astype(np.uint8)),
    "fixed-batch-4": ("logits", lambda pixels: PLANES(CENTRED(pixels)).astype(np.float32)),
}


@pytest.mark.parametrize("model", TENSORS)
def test_every_element_type_and_layout(tiny_wire, model):
    output, prepare = TENSORS[model]
    pixels = np.array([np.full((4, 4, 3), rgb) for rgb, _ in oracle.COLOURS[model]])
    tensor = np.ascontiguousarray(prepare(pixels))
    scores = tiny_wire.infer(model, {"image": tensor}).as_numpy(output)
    (_, datatype, shape), (_, answered, _) = described(tiny_wire.metadata(model)["inputs"] + tiny_wire.metadata(model)["outputs"])
    assert shape[1:] == list(tensor.shape[1:])
    assert {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}[datatype] == tensor.dtype
    assert {"FP32": np.float32, "FP16": np.float16}[answered] == scores.dtype
    expected = np.array([probabilities for _, probabilities in oracle.COLOURS[model]])
    # Half a float has 11 bits.
    np.testing.assert_allclose(oracle.softmax(scores), expected, atol=2e-3 if model == "half" else 1e-6)


# --- photos


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_photos_are_prepared_and_classified(wire, cat, coffee, shape):
    answer = wire.infer(PHOTOS, photos(cat, coffee, cat, shape=shape))
    probabilities, index, label = (answer.as_numpy(name) for name in ("probabilities", "class_index", "label"))
    assert probabilities.shape == (3, CLASSES) and index.shape == label.shape == (3, 1)
    expected = oracle.softmax(oracle.logits([oracle.sample(photo) for photo in (cat, coffee, cat)]))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert index.dtype == np.int64 and list(index[:, 0]) == list(expected.argmax(axis=1))
    assert [name.decode() for name in label[:, 0]] == [LABELS[best] for best in index[:, 0]]
    assert index[0, 0] == index[2, 0] == CAT


def test_photos_of_every_kind_of_model(tiny_wire, cat):
    for model in ("bytes", "half", "multi-label", "fixed-batch-4"):
        probabilities = tiny_wire.infer(model + "_image", photos(cat)).as_numpy("probabilities")
        assert probabilities.shape == (1, 3) and probabilities.dtype == np.float32
        exclusive = abs(probabilities.sum() - 1) < 1e-5
        assert exclusive == (model != "multi-label"), model


# --- what a request may ask


def test_only_the_outputs_asked_for_in_the_order_asked(wire, cat):
    answer = wire.infer(PHOTOS, photos(cat), outputs=["label", "probabilities"])
    assert answer.as_numpy("label")[0, 0] == b"cat" and answer.as_numpy("probabilities").shape == (1, CLASSES)
    assert answer.as_numpy("class_index") is None
    response = answer.get_response(**wire.as_json)
    assert [output["name"] for output in response["outputs"]] == ["label", "probabilities"]


@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_classification_gives_the_best_with_value_index_and_label(wire, cat, coffee, k):
    samples = np.stack([oracle.sample(cat), oracle.sample(coffee)])
    entries = wire.infer(MODEL, {"input": samples}, outputs=["logits"], classes=k).as_numpy("logits")
    assert entries.shape == (2, k)
    for row, scores in zip(entries, oracle.logits(samples)):
        best = np.argsort(-scores)[:k]
        parsed = [entry.decode().split(":") for entry in row]
        assert [int(index) for _, index, _ in parsed] == list(best)
        assert [label for _, _, label in parsed] == [LABELS[index] for index in best]
        assert all(len(value.split(".")[1]) == 6 for value, _, _ in parsed), "as C++ prints floats"
        np.testing.assert_allclose([float(value) for value, _, _ in parsed], scores[best], atol=1e-4)


def test_classification_of_photos_and_of_more_classes_than_there_are(wire, cat):
    entries = wire.infer(PHOTOS, photos(cat), outputs=["probabilities"], classes=1000).as_numpy("probabilities")
    assert entries.shape == (1, CLASSES)
    value, index, label = entries[0, 0].decode().split(":")
    assert (int(index), label) == (CAT, "cat") and 0.97 < float(value) < 0.98


def test_id_model_and_version_are_told(wire, cat):
    for version in ("", "1"):
        response = wire.infer(PHOTOS, photos(cat), request_id="a-7", model_version=version).get_response(**wire.as_json)
        assert (response["id"], response["model_name"], response["model_version"]) == ("a-7", PHOTOS, "1")


def test_parameters_come_back(wire, cat):
    sent = {"camera": "north", "attempt": 3, "certain": True}
    told = wire.infer(PHOTOS, photos(cat), parameters=sent).get_response(**wire.as_json)["parameters"]
    if wire.name == "grpc":  # {"camera": {"string_param": "north"}, "attempt": {"int64_param": "3"}, ...}
        told = {name: next(iter(value.values())) for name, value in told.items()}
        sent = sent | {"attempt": "3"}
    assert {name: told[name] for name in sent} == sent


def test_a_timeout_in_microseconds_ends_the_request(wire, cat):
    kind, sentence = refusal(wire, PHOTOS, photos(cat), timeout=1)
    assert kind == "late", sentence
    assert wire.infer(PHOTOS, photos(cat), timeout=60_000_000).as_numpy("label")[0, 0] == b"cat"


# --- refusals


def test_unknown_names_are_unknown(wire, cat):
    for model, version in (("nobody", ""), ("nobody_image", ""), (MODEL + "_image_image", ""), (PHOTOS, "7"), (PHOTOS, "x")):
        kind, sentence = refusal(wire, model, photos(cat), model_version=version)
        assert kind == "unknown" and (version or model) in sentence, (model, version, sentence)


SAMPLE = np.zeros((1, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    "tensors, outputs, word",
    [
        ({"input": SAMPLE.astype(np.float64)}, None, "FP64"),
        ({"input": SAMPLE.astype(np.uint8)}, None, "UINT8"),
        ({"input": SAMPLE[:, :, :, :31]}, None, "31"),
        ({"input": SAMPLE[0]}, None, "[3,32,32]"),
        ({"input": SAMPLE[:0]}, None, "0"),
        ({"picture": SAMPLE}, None, "picture"),
        ({"input": SAMPLE, "more": SAMPLE}, None, "more"),
        ({"input": SAMPLE}, ["scores"], "scores"),
        ({"input": np.full_like(SAMPLE, np.nan)}, None, "NaN"),
    ],
    ids=["f64", "u8", "31 wide", "no batch", "no images", "another name", "two inputs", "another output", "NaN"],
)
def test_tensors_that_do_not_fit_are_refused(wire, tensors, outputs, word):
    kind, sentence = refusal(wire, MODEL, tensors, outputs=outputs)
    assert kind == "invalid" and word in sentence.replace(", ", ","), (kind, sentence)


@pytest.mark.parametrize(
    "tensors, word",
    [
        ({"image": SAMPLE}, "FP32"),
        (photos(b"not a photo"), "image"),
        (photos(b""), "empty"),
        (photos(*[b"x"] * 4, shape=(2, 2)), "[2,2]"),
    ],
    ids=["floats", "no photo", "nothing", "two columns"],
)
def test_photos_that_are_none_are_refused(wire, tensors, word):
    kind, sentence = refusal(wire, PHOTOS, tensors)
    assert kind == "invalid" and word in sentence.replace(", ", ","), (kind, sentence)


def test_one_broken_photo_fails_its_request_and_says_which(wire, cat):
    kind, sentence = refusal(wire, PHOTOS, photos(cat, cat[:5000], cat))
    assert kind == "invalid" and "image 1" in sentence, sentence


def test_what_is_not_offered_is_an_error_and_no_silence(wire):
    for call in (
        wire.client.get_system_shared_memory_status,
        wire.client.get_cuda_shared_memory_status,
        wire.client.get_trace_settings,
        wire.client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException) as raised:
            call()
        assert wire.status(raised.value) in ("unknown", "StatusCode.UNIMPLEMENTED")
        assert "exception occurred in the client" not in raised.value.message(), "its error has the form that the client reads"


def test_shared_memory_is_refused_by_name(wire):
    region = wire.library.InferInput("input", [1, 3, 32, 32], "FP32")
    region.set_shared_memory("region", SAMPLE.nbytes)
    with pytest.raises(InferenceServerException) as raised:
        wire.client.infer(MODEL, [region])
    assert wire.status(raised.value) == "invalid" and "shared" in raised.value.message()


# --- statistics


def test_statistics_count_requests_images_and_time(wire, cat):
    count = lambda document, name: int(document["inference_stats"].get(name, {}).get("count", 0))
    before = wire.statistics(MODEL)
    for _ in range(3):
        wire.infer(MODEL, {"input": oracle.random_samples(2)})
    refusal(wire, MODEL, {"input": SAMPLE[0]})
    after = wire.statistics(MODEL)
    assert (after["name"], after["version"]) == (MODEL, "1")
    assert count(after, "success") - count(before, "success") == 3
    assert int(after["inference_count"]) - int(before.get("inference_count", 0)) == 6
    executions = int(after["execution_count"]) - int(before.get("execution_count", 0))
    assert 3 <= executions <= 6
    assert int(after["last_inference"]) > 1_700_000_000_000, "milliseconds since 1970"
    assert int(after["inference_stats"]["compute_infer"]["ns"]) > int(
        before["inference_stats"].get("compute_infer", {}).get("ns", 0)
    )


def test_statistics_of_all_models_hold_every_duration(wire):
    documents = wire.client.get_inference_statistics(**wire.as_json)["model_stats"]
    assert {MODEL, PHOTOS} <= {document["name"] for document in documents}
    for document in documents:
        assert {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"} <= (
            document["inference_stats"].keys()
        )


# --- the repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A server of a directory with two models."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("colours", "half"):
        shutil.copytree(TINY / name, folder / name)
    with served("--models", str(folder)) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def keeper(request, repository):
    with Wire(request.param, repository) as wire:
        yield wire


def states(wire):
    return {entry["name"]: entry["state"] for entry in wire.index()}


def test_a_model_is_unloaded_and_loaded_again(keeper):
    assert states(keeper)["colours"] == "READY"
    image = {"image": np.zeros((1, 3, 4, 4), np.float32)}
    keeper.infer("colours", image)

    keeper.client.unload_model("colours")
    assert states(keeper).get("colours", "UNAVAILABLE") != "READY"
    assert not keeper.client.is_model_ready("colours") and not keeper.client.is_model_ready("colours_image")
    with pytest.raises(InferenceServerException):
        keeper.infer("colours", image)
    assert keeper.client.is_model_ready("half") and keeper.client.is_server_live()

    keeper.client.load_model("colours")
    assert states(keeper)["colours"] == "READY" and keeper.client.is_model_ready("colours_image")
    keeper.infer("colours", image)


def test_what_is_not_there_cannot_be_loaded_or_unloaded(keeper):
    for call in (keeper.client.load_model, keeper.client.unload_model):
        with pytest.raises(InferenceServerException) as raised:
            call("nobody")
        assert "nobody" in raised.value.message()


def test_files_and_configs_from_a_client_are_refused(keeper):
    for given in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"\x08\x08"}}):
        with pytest.raises(InferenceServerException) as raised:
            keeper.client.load_model("colours", **given)
        assert keeper.status(raised.value) in ("invalid", "StatusCode.UNIMPLEMENTED") and "config" in raised.value.message()
    assert states(keeper)["colours"] == "READY"
