"""Makes the tiny models of the integration tests, with onnx==1.23.2.

    python make.py

Each takes 4x4 pictures and has three classes, red, green and blue, whose logits are the means of the channels: a graph
of a few hundred bytes whose right answer anyone can tell.
"""
import json
import pathlib

import onnx
from onnx import TensorProto, helper

HERE = pathlib.Path(__file__).resolve().parent


def model(name, batch="N", ending=None, features=False):
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["logits" if ending is None else "means"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])]
    if ending is not None:
        nodes.append(helper.make_node(ending, ["means"], ["logits"]))
    if features:
        nodes.append(helper.make_node("Flatten", ["image"], ["features"], axis=1))
        outputs.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 48]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 4, 4])]
    graph = helper.make_graph(nodes, name, inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="residual")
    onnx.checker.check_model(made, full_check=True)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    onnx.save(made, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "red", "1": "green", "2": "blue"}}) + "\n")
    recipe = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 4, "width": 4},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe) + "\n")


model("colours")
model("fixed-batch", batch=1)
model("two-outputs", features=True)  # a float output before the logits, as exports with features have
model("softmax", ending="Softmax")  # probabilities instead of logits
model("nan", ending="Sqrt")  # NaN for every picture darker than gray, and none in the warm-up
