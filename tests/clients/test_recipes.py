"""Residual's samples against those of the libraries whose recipes it follows, in levels of the 8-bit picture.

Skips itself unless requirements-recipes.txt is installed. Pictures are the two of tests/golden/inputs, parts of them in
odd sizes, and, where RESIDUAL_PHOTOS names a folder, all photos in it. Each is handed over as PNG, so that nothing but the
preprocessing is compared. `pytest -s` shows how often pixels are equal.
"""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess

import pytest

np = pytest.importorskip("numpy")
cv2 = pytest.importorskip("cv2")
torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from PIL import Image  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RESIDUAL_BINARY", str(ROOT / "target" / "debug" / "residual"))

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# Landscape, portrait and square, around the sizes of resize and crop, with odd differences, thin and tiny.
PARTS = [
    *[(450, 299), (299, 450), (256, 256), (224, 224), (225, 224), (223, 224), (255, 257), (232, 300), (401, 235)],
    *[(512, 384), (448, 300), (37, 29), (3, 2), (1, 1), (1, 40), (40, 1), (2, 75), (33, 32), (32, 32), (600, 17)],
]

# What two correct computations may differ by, in levels. Pillow's and OpenCV's 8-bit arithmetic is followed to the last
# bit, so that only the f32 of the normalisation is left.
EXACT = 0.002
# One of the two keeps fractions of a level where the other rounds once or twice.
ONE_LEVEL = 1.002
# torch's 8-bit weights are less precise than Pillow's: a level is rarely off by two, and most are equal.
TORCH = 2.002
TORCH_BEYOND_ONE_LEVEL = 1e-3


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Name -> (path of a PNG, the picture)."""
    folder = tmp_path_factory.mktemp("pictures")
    inputs = ROOT / "tests" / "golden" / "inputs"
    found = {path.stem: Image.open(path).convert("RGB") for path in sorted(inputs.glob("*.jpg"))}
    coffee = found["coffee"]
    for width, height in PARTS:
        left, top = (coffee.width - width) // 3, (coffee.height - height) // 2
        part = coffee if height > coffee.height else coffee.crop((left, top, left + width, top + height))
        found[f"{width}x{height}"] = part.resize((width, height))
    photos = os.environ.get("RESIDUAL_PHOTOS")
    for path in sorted(pathlib.Path(photos).rglob("*.*")) if photos else []:
        if path.suffix.lower() in [".jpg", ".jpeg", ".png"]:
            found[path.stem] = Image.open(path).convert("RGB")
    pictures = {}
    for name, picture in found.items():
        path = folder / f"{name}.png"
        picture.save(path, compress_level=1)
        pictures[name] = (path, picture)
    return pictures


@dataclasses.dataclass
class Count:
    samples: int = 0
    values: int = 0
    equal: int = 0
    beyond_one: int = 0
    largest: float = 0.0

    def add(self, levels):
        self.samples += 1
        self.values += levels.size
        self.equal += int((levels <= EXACT).sum())
        self.beyond_one += int((levels > ONE_LEVEL).sum())
        self.largest = max(self.largest, float(levels.max()))


@pytest.fixture(scope="session")
def tally():
    """How far apart the samples were, by reference."""
    counts = collections.defaultdict(Count)
    yield counts
    print("\n| reference | samples | equal | more than one level apart | largest difference |\n| --- | --- | --- | --- | --- |")
    for name, count in counts.items():
        equal, beyond = (100 * part / count.values for part in (count.equal, count.beyond_one))
        print(f"| {name} | {count.samples} | {equal:.4g} % | {beyond:.2g} % | {count.largest:.4f} |")


@pytest.fixture
def residual(tmp_path):
    def run(path, *arguments):
        output = tmp_path / "sample.npy"
        subprocess.run([BINARY, "preprocess", path, *arguments, "-o", output], check=True, capture_output=True)
        return np.load(output)

    return run


@pytest.fixture
def check(pictures, residual, tally):
    """Compares `reference(picture)`, f32 [3,H,W], with Residual's sample of every picture."""

    def compare(name, arguments, reference, std, rescale=1 / 255, tolerance=EXACT, only=lambda picture: True):
        std = np.asarray(std, np.float64).reshape(3, 1, 1)
        compared = 0
        for which, (path, picture) in pictures.items():
            if not only(picture):
                continue
            expected = np.asarray(reference(picture), np.float64)
            found = residual(path, *arguments).astype(np.float64)
            assert found.shape == expected.shape, f"{name}, {which}"
            levels = np.abs(found - expected) * std / rescale
            tally[name].add(levels)
            assert levels.max() <= tolerance, f"{name}, {which}: {levels.max():.3f} levels apart"
            beyond = (levels > ONE_LEVEL).mean()
            assert beyond <= TORCH_BEYOND_ONE_LEVEL, f"{name}, {which}: {100 * beyond:.3f} % are more than a level apart"
            compared += 1
        assert compared >= 8, "only a few pictures were compared"

    return compare


# --- torchvision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.parametrize("preset, weights", [("torchvision-v1", "IMAGENET1K_V1"), ("torchvision-v2", "IMAGENET1K_V2")])
def test_torchvision_presets_are_the_transforms_of_its_weights(check, preset, weights, depth):
    transform = torchvision.models.get_weight(f"ResNet{depth}_Weights.{weights}").transforms()
    check(f"torchvision {weights}", ["--preset", preset], transform, IMAGENET_STD)


# --- timm -------------------------------------------------------------------------------------------------------------


def timm_transform(settings, use_test_size=False):
    config = timm.data.resolve_data_config(pretrained_cfg=settings, use_test_size=use_test_size)
    return timm.data.create_transform(**config, is_training=False)


@pytest.mark.parametrize(
    "preset, weights",
    [
        ("timm-a1", "resnet50.a1_in1k"),
        ("timm-a1", "resnet50.d_in1k"),
        ("timm-a2", "resnet152.a2_in1k"),
        ("timm-a3", "resnet34.a3_in1k"),
        ("timm-a1h", "resnet50.a1h_in1k"),
        ("timm-bt", "resnet34.bt_in1k"),
        ("timm-bt", "resnet50.ram_in1k"),
        ("timm-ra4", "resnet34.ra4_e3600_r224_in1k"),
        ("timm-gluon", "resnet152.gluon_in1k"),
        ("timm-tv2", "resnet101.tv2_in1k"),
        ("timm-fb", "resnet50.fb_swsl_ig1b_ft_in1k"),
        ("torchvision-v1", "resnet18.tv_in1k"),
    ],
)
def test_timm_presets_are_the_transforms_of_their_weights(check, preset, weights):
    settings = timm.get_pretrained_cfg(weights).to_dict()
    check("timm presets", ["--preset", preset], timm_transform(settings), settings["std"])
    if settings.get("test_input_size"):
        _, height, width = settings["test_input_size"]
        arguments = ["--preset", preset, "--size", f"{width}x{height}"]
        check("timm presets, test size", arguments, timm_transform(settings, True), settings["std"])


def resnet_settings():
    """Every distinct way in which timm prepares pictures for a ResNet, by the first weights that use it."""
    found = {}
    for name in timm.list_pretrained("*resnet*"):
        settings = timm.get_pretrained_cfg(name).to_dict()
        keys = ["input_size", "test_input_size", "crop_pct", "test_crop_pct", "crop_mode", "interpolation", "mean", "std"]
        key = json.dumps([settings.get(key) for key in keys])
        if settings["input_size"][0] == 3 and max(settings["input_size"][1:]) <= 512:
            found.setdefault(key, (name, settings))
    return list(found.values())


@pytest.mark.parametrize("name, settings", resnet_settings(), ids=lambda value: value if isinstance(value, str) else "")
def test_timm_files_give_the_transforms_of_timm(check, tmp_path, name, settings):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architecture": name, "num_classes": 1000, "pretrained_cfg": settings}, default=str))
    few = lambda picture: min(picture.size) <= 40 or picture.width % 2 == 1
    check("timm config.json", ["--recipe", config], timm_transform(settings), settings["std"], only=few)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("input_size, crop_pct", [([3, 224, 224], 0.95), ([3, 160, 288], 0.9), ([3, 97, 64], 1.0)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"])
def test_timm_crop_modes_and_filters(check, tmp_path, crop_mode, input_size, crop_pct, interpolation):
    settings = {
        **{"input_size": input_size, "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": interpolation},
        **{"mean": [0.48, 0.31, 0.66], "std": [0.25, 0.3, 0.2]},
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": settings}))
    # Where the fitted picture would lose a side, timm fails and Residual keeps one pixel.
    only = lambda picture: crop_mode != "border" or max(picture.size) / min(picture.size) < 30
    check(f"timm {crop_mode}", ["--recipe", config], timm_transform(settings), settings["std"], only=only)


def test_timms_wrapper_in_transformers_is_timm(check, tmp_path):
    settings = timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict()
    processor = transformers.TimmWrapperImageProcessor(pretrained_cfg=settings, architecture="resnet50")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": settings}, default=str))
    check("TimmWrapper", ["--recipe", config], lambda picture: processor(picture)["pixel_values"][0], settings["std"])


# --- transformers -----------------------------------------------------------------------------------------------------

IMAGENET = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
PROCESSORS = {
    # microsoft/resnet-50 and its derivatives.
    "microsoft-resnet": ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, **IMAGENET}),
    "convnext-383": ("ConvNext", {"size": {"shortest_edge": 383}, "crop_pct": 0.95, "resample": 2, **IMAGENET}),
    "convnext-384": ("ConvNext", {"size": {"shortest_edge": 384}, "resample": 3, **IMAGENET}),
    "convnext-silent": ("ConvNext", {}),
    "bit": ("Bit", {}),
    "bit-odd": ("Bit", {"size": {"shortest_edge": 97}, "crop_size": {"height": 60, "width": 81}, "resample": 1, **IMAGENET}),
    "bit-padded": ("Bit", {"size": {"shortest_edge": 30}, "crop_size": {"height": 61, "width": 44}}),
    "clip": ("CLIP", {}),
    "clip-number": ("CLIP", {"size": 240, "crop_size": 200}),
    "vit": ("ViT", {}),
    "vit-sides": ("ViT", {"size": {"height": 160, "width": 224}, "resample": 3, "do_rescale": True, **IMAGENET}),
    "vit-unnormalised": ("ViT", {"do_normalize": False}),
    "deit": ("DeiT", {}),
    "deit-number": ("DeiT", {"size": 248, "crop_size": 224}),
    "efficientnet": ("EfficientNet", {"size": {"height": 90, "width": 80}, "rescale_offset": True}),
    "efficientnet-cropped": ("EfficientNet", {"do_center_crop": True, "include_top": False}),
}


@pytest.mark.parametrize("backend", ["pil", "torch"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_image_processors_of_transformers(check, tmp_path, name, backend):
    family, arguments = PROCESSORS[name]
    processor = getattr(transformers, f"{family}ImageProcessor{'Pil' if backend == 'pil' else ''}")(**arguments)
    processor.save_pretrained(tmp_path)
    config = tmp_path / "preprocessor_config.json"
    written = json.loads(config.read_text())
    if backend == "torch":
        # The name that version 4 gave to this arithmetic.
        written["image_processor_type"] = f"{family}ImageProcessorFast"
        config.write_text(json.dumps(written))
    std = np.array(written["image_std"] if written.get("do_normalize", True) else [1, 1, 1])
    if family == "EfficientNet" and written.get("include_top"):
        std = std * np.array(written["image_std"])
    check(
        f"transformers {backend}, resample {written['resample']}",
        ["--recipe", config],
        lambda picture: np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]),
        std,
        tolerance=EXACT if backend == "pil" else TORCH,
    )


# --- OpenCV: MLPerf and the zoo's notebook ----------------------------------------------------------------------------


def centre(image, side):
    top, left = int((image.shape[0] - side) / 2), int((image.shape[1] - side) / 2)
    return image[top : top + side, left : left + side]


def test_mlperf_is_the_harness_of_mlcommons(check):
    def harness(picture):
        image = np.asarray(picture)
        height, width, _ = image.shape
        edge = int(100.0 * 224 / 87.5)
        size = (edge, int(edge * height / width)) if height > width else (int(edge * width / height), edge)
        image = centre(cv2.resize(image, size, interpolation=cv2.INTER_AREA), 224).astype(np.float32)
        return (image - np.array([123.68, 116.78, 103.94], np.float32)).transpose(2, 0, 1)

    check("MLPerf, INTER_AREA", ["--preset", "mlperf"], harness, [1, 1, 1], rescale=1)


def test_zoo_notebook_is_the_notebook(check):
    def notebook(picture):
        # The notebook resizes fractions, which Residual rounds to levels.
        image = centre(cv2.resize(np.asarray(picture) / 255.0, (256, 256)), 224)
        return ((image - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)

    # OpenCV's 8-bit weights have 11 bits, which adds to the rounding: 0.75 levels at most were seen.
    check("zoo notebook, floating point", ["--preset", "zoo-notebook"], notebook, IMAGENET_STD, tolerance=ONE_LEVEL)


def test_zoo_notebook_is_opencvs_8_bit_resize(check):
    def eight_bit(picture):
        image = centre(cv2.resize(np.asarray(picture), (256, 256)), 224).astype(np.float32) / np.float32(255)
        return ((image - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)).transpose(2, 0, 1)

    check("zoo notebook, 8 bits", ["--preset", "zoo-notebook"], eight_bit, IMAGENET_STD)


# --- the ONNX Model Zoo -----------------------------------------------------------------------------------------------


def test_onnx_zoo_is_its_script(check):
    def script(picture):
        ratio = 256 / min(picture.size)
        picture = picture.resize(tuple(int(round(ratio * side)) for side in picture.size), Image.Resampling.BILINEAR)
        image = np.asarray(picture)
        left, top = picture.width // 2 - 112, picture.height // 2 - 112
        image = image[top : top + 224, left : left + 224].astype(np.float32) / np.float32(255)
        return ((image - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)).transpose(2, 0, 1)

    check("onnx-zoo, imagenet_preprocess.py", ["--preset", "onnx-zoo"], script, IMAGENET_STD)


def test_onnx_zoo_is_onnx_s_own_resize(check):
    """The operators of resnet-preproc-v1-18.onnx: Resize with antialias and not_smaller, then CenterCropPad.

    Where the longer side has to be rounded, Resize keeps the unrounded scale and so shifts pixels by parts of their width;
    Pillow, and with it the zoo's script and Residual, stretches the picture to the rounded size.
    """
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    constants = {"size": np.array([256, 256], np.int64), "crop": np.array([224, 224], np.int64)}
    nodes = [
        helper.make_node(
            "Resize", ["x", "", "", "size"], ["resized"], mode="linear", antialias=1, axes=[2, 3],
            keep_aspect_ratio_policy="not_smaller",
        ),
        helper.make_node("CenterCropPad", ["resized", "crop"], ["y"], axes=[2, 3]),
    ]
    value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, None, None])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "preprocess", [value("x")], [value("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(picture):
        image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None]
        image = session.run(None, {"x": image})[0][0] / 255
        return (image - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))

    check(
        "onnx-zoo, Resize of ONNX Runtime",
        ["--preset", "onnx-zoo"],
        run,
        IMAGENET_STD,
        tolerance=ONE_LEVEL,
        only=lambda picture: 256 * max(picture.size) % min(picture.size) == 0,
    )
