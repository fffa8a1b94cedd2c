"""`residual convert` against the libraries whose weights it reads: the same logits from the same numbers.

Needs requirements-torch.txt, which is several gigabytes; without it these tests are skipped.
"""
import json
import os
import pathlib
import subprocess

import pytest

REASON = "install tests/clients/requirements-torch.txt to compare with torchvision, timm and transformers"
np = pytest.importorskip("numpy", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
safetensors_torch = pytest.importorskip("safetensors.torch", reason=REASON)
timm = pytest.importorskip("timm", reason=REASON)
torch = pytest.importorskip("torch", reason=REASON)
torchvision = pytest.importorskip("torchvision", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RESIDUAL_BINARY", str(ROOT / "target" / "debug" / "residual"))
# Largest difference of two logits, over the largest logit. Both sides sum the same f32 numbers in another order.
TOLERANCE = 1e-4


def trained(model, size):
    """Gives every batch norm a scale, a bias and statistics of its own, as training does: with those of a fresh model,
    folding would multiply by one."""
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.2, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, size, size, generator=generator))
        for norm in norms:
            norm.running_mean.add_(0.2 * norm.running_var.sqrt() * torch.randn(norm.num_features, generator=generator))
            norm.running_var.mul_(torch.empty(norm.num_features).uniform_(0.7, 1.4, generator=generator))
    return model.eval()


def convert(weights, output, *flags):
    return subprocess.run([BINARY, "convert", str(weights), "-o", str(output), *flags], capture_output=True, text=True)


def agree(model, weights, output, size, *flags, tolerance=TOLERANCE):
    """Converts and compares the logits of two noisy pictures."""
    result = convert(weights, output, "--size", str(size), *flags)
    assert result.returncode == 0, result.stderr
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(pictures)
    expected = getattr(expected, "logits", expected).numpy()
    session = onnxruntime.InferenceSession(str(output / "model.onnx"), providers=["CPUExecutionProvider"])
    dtype = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    (found,) = session.run(None, {session.get_inputs()[0].name: pictures.numpy().astype(dtype)})
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < tolerance, f"{difference:.1e}\n{result.stdout}"
    print(f"{difference:.1e} {result.stdout.splitlines()[0]}")
    return result


def saved(model, path):
    safetensors_torch.save_file(model.state_dict(), path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"],
)
def test_torchvision(name, tmp_path):
    model = trained(getattr(torchvision.models, name)(weights=None), 64)
    result = agree(model, saved(model, tmp_path / "w.safetensors"), tmp_path / "out", 96, "--preset", "torchvision-v2")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"{parameters:,} parameters" in result.stdout
    assert 'preset = "torchvision-v2"' in (tmp_path / "out" / "residual.toml").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t", "resnet14t", "resnet18", "resnet18d", "resnet26", "resnet26d", "resnet26t", "resnet34d",
        "resnet50", "resnet50c", "resnet50d", "resnet50s", "resnext50d_32x4d", "wide_resnet50_2",
        "resnetv2_18", "resnetv2_34", "resnetv2_50",
    ],
)  # fmt: skip
def test_timm(name, tmp_path):
    # 75 pixels are odd at every stride: windows at the edges count.
    model = trained(timm.create_model(name, num_classes=37), 75)
    timm.models.save_for_hf(model, tmp_path / "hub", safe_serialization=True)
    result = agree(model, tmp_path / "hub" / "model.safetensors", tmp_path / "out", 75)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architecture"] == name
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters" in result.stdout
    # The recipe is in config.json; all that is wrong with it is the size asked for here.
    assert "will be assumed" not in result.stderr and "the graph takes 75x75" in result.stderr, result.stderr


@pytest.mark.parametrize(
    "settings",
    [
        dict(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512]),
        dict(depths=[3, 4, 6, 3]),
        dict(depths=[1, 2, 1, 1], downsample_in_bottleneck=True),
        dict(depths=[1, 2, 1, 1], downsample_in_first_stage=True),
    ],
    ids=["resnet18", "resnet50", "v1", "first_stage"],
)
def test_transformers(settings, tmp_path):
    config = transformers.ResNetConfig(num_labels=11, **settings)
    model = trained(transformers.ResNetForImageClassification(config), 64)
    model.save_pretrained(tmp_path / "hub", safe_serialization=True)
    (tmp_path / "hub" / "preprocessor_config.json").write_text('{"crop_pct": 0.875, "size": {"shortest_edge": 96}}')
    result = agree(model, tmp_path / "hub" / "model.safetensors", tmp_path / "out", 96)
    assert (tmp_path / "out" / "config.json").exists() and (tmp_path / "out" / "preprocessor_config.json").exists()
    assert result.stderr == ""
    assert (" v1:" in result.stdout.replace(",", ":")) == ("downsample_in_bottleneck" in settings)


@pytest.mark.parametrize(
    ("flags", "tolerance"),
    [
        (["--batch-norm", "explicit"], TOLERANCE),
        # f16 keeps eleven bits: 5e-4 a rounding, over twenty layers.
        (["--dtype", "f16"], 1e-2),
        (["--dtype", "f16", "--batch-norm", "explicit"], 1e-2),
    ],
)
def test_forms(flags, tolerance, tmp_path):
    model = trained(torchvision.models.resnet18(weights=None), 64)
    agree(model, saved(model, tmp_path / "w.safetensors"), tmp_path / "out", 96, *flags, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_widened(dtype, tmp_path):
    model = trained(torchvision.models.resnet18(weights=None), 64).to(dtype)
    weights = saved(model, tmp_path / "w.safetensors")
    agree(model.float(), weights, tmp_path / "out", 96)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnetaa50", 'architecture is "resnetaa50"; it pools where a ResNet strides'),
        ("resnetblur50", 'architecture is "resnetblur50"'),
        ("seresnet50", "squeeze-and-excitation"),
        ("resnet50_gn", "group norm"),
        ("resnetv2_50x1_bit", "group norm"),
        ("resnetv2_50d", "stem.conv.weight is missing"),
        ("regnetx_002", "these are no ResNet weights that are known here"),
    ],
)
def test_other_networks_are_refused(name, said, tmp_path):
    timm.models.save_for_hf(timm.create_model(name), tmp_path / "hub", safe_serialization=True)
    result = convert(tmp_path / "hub" / "model.safetensors", tmp_path / "out")
    assert result.returncode == 1 and said in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()
