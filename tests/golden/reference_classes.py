"""The reference for `tests/integration/reference.rs`: the built-in model through Pillow, numpy and onnxruntime.

    python reference_classes.py CIFAR_TEST_DIR > reference_classes.tsv

CIFAR_TEST_DIR holds <class>/<number>.jpg, 1,000 images of the CIFAR-10 test set as 32x32 JPEG, which are not part of this
repository. One line an image: its path and the label of the best class. Needs the versions in requirements.txt.
"""
import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "resnet20-cifar10"


def sample(path, recipe):
    """One image as transformers' image processors prepare it: shortest edge, centre crop, rescale, normalise."""
    image = Image.open(path).convert("RGB")
    edge, crop = recipe["size"]["shortest_edge"], recipe["crop_size"]
    short, long = sorted(image.size)
    longer = int(edge * long / short)
    size = (edge, longer) if image.width <= image.height else (longer, edge)
    image = image.resize(size, Image.Resampling(recipe["resample"]))
    left, top = (image.width - crop["width"]) // 2, (image.height - crop["height"]) // 2
    image = image.crop((left, top, left + crop["width"], top + crop["height"]))
    x = (np.asarray(image) * recipe["rescale_factor"]).astype(np.float32)
    x = (x - np.float32(recipe["image_mean"])) / np.float32(recipe["image_std"])
    return x.transpose(2, 0, 1)


def main(folder):
    recipe = json.loads((MODEL / "preprocessor_config.json").read_text())
    labels = json.loads((MODEL / "config.json").read_text())["id2label"]
    session = onnxruntime.InferenceSession(str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"])
    files = sorted(pathlib.Path(folder).glob("*/*.jpg"))
    for start in range(0, len(files), 100):
        batch = np.stack([sample(path, recipe) for path in files[start : start + 100]])
        for path, row in zip(files[start:], session.run(None, {"input": batch})[0]):
            print(f"{path.parent.name}/{path.name}\t{labels[str(row.argmax())]}")


if __name__ == "__main__":
    main(sys.argv[1])
