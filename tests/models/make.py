"""Makes the tiny models of the integration tests, and what ONNX Runtime's own Python package answers to plain colours.

    pip install onnx==1.23.2 onnxruntime==1.31.1 && python make.py

Each takes 4x4 pictures and has three classes, red, green and blue, whose logits are the means of the channels or grow
with them: graphs of a few hundred bytes whose right answer anyone can tell. Every one has a trait of some exporter.
"""
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
FLOAT, HALF, BYTE, INDEX = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
LABELS = ["red", "green", "blue"]
COLOURS = [(250, 10, 10), (0, 200, 0), (20, 30, 240), (130, 120, 125)]
EXPECTED = {}

node = helper.make_node


def value(name, shape, element=FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def pooled(to="means", source="image"):
    """[N,3,4,4] -> [N,3]"""
    return [node("GlobalAveragePool", [source], ["pool"]), node("Flatten", ["pool"], [to], axis=1)]


# A classifier layer that lets the scores of two pictures differ by more than their colours.
WEIGHT = constant("weight", [[2, -1, 0], [0, 2, -1], [-1, 0, 2]])
BIAS = constant("bias", [0.1, 0.2, 0.3])


def model(
    name,
    nodes,
    outputs,
    inputs=None,
    weights=(),
    reading=softmax,
    labels=LABELS,
    problem_type=None,
    opset=17,
    ir=9,
    external=False,
    inner=(),
    kept=3,
    answers=0,
):
    """`reading` turns the first row of `outputs[answers]` into scores; None for a model that is refused."""
    inputs = inputs or [value("image", ["N", 3, 4, 4])]
    graph = helper.make_graph(nodes, name, inputs, outputs, list(weights), value_info=list(inner))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    made.producer_name = "residual"
    onnx.checker.check_model(made, full_check=True)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    data = folder / "model.onnx.data"
    data.unlink(missing_ok=True)  # or onnx appends to it
    # Bytes of a Python object: only the weight is that large.
    outside = {"save_as_external_data": True, "location": data.name, "size_threshold": 60}
    onnx.save(made, path, **(outside if external else {}))
    config = {"id2label": {str(index): label for index, label in enumerate(labels)}}
    if problem_type is not None:
        config["problem_type"] = problem_type
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    recipe = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 4, "width": 4},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe) + "\n")
    if reading is not None:
        EXPECTED[name] = [answer(path, colour, outputs[answers].name, reading, kept) for colour in COLOURS]


def answer(path, colour, output, reading, kept):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = next(given for given in session.get_inputs())
    pixels = np.broadcast_to(np.array(colour, np.uint8), (1, 4, 4, 3))
    if image.type == "tensor(uint8)":
        sample = pixels
    else:
        sample = (pixels.astype(np.float32) * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)
        sample = sample.astype(np.float16 if image.type == "tensor(float16)" else np.float32)
    if image.shape[1] == 3:
        sample = sample.transpose(0, 3, 1, 2)
    if isinstance(image.shape[0], int):
        sample = np.repeat(sample, image.shape[0], axis=0)
    row = session.run([output], {image.name: np.ascontiguousarray(sample)})[0]
    scores = reading(row.reshape(len(sample), -1)[0].astype(np.float64))
    best = np.argsort(-scores, kind="stable")[:kept]
    return {"rgb": colour, "predictions": [[int(index), float(scores[index])] for index in best]}


logits = value("logits", ["N", 3])
gemm = node("Gemm", ["means", "weight", "bias"], ["logits"], transB=1)

# A classifier layer that changes nothing.
SAME = constant("same", np.eye(3))
model("colours", [*pooled(), node("Gemm", ["means", "same"], ["logits"])], [logits], weights=[SAME])
# NaN for every picture darker than gray.
model("nan", [*pooled(), node("Sqrt", ["means"], ["logits"])], [logits], reading=None)


def light():
    """`light`: 0 for every picture but those near white, which have 0.1 at most."""
    return [
        node("ReduceMin", ["means"], ["darkest"], axes=[1], keepdims=0),
        node("ReduceMax", ["darkest"], ["lightest"], axes=[0], keepdims=0),
        node("Sub", ["lightest", "threshold"], ["above"]),
        node("Relu", ["above"], ["light"]),
    ]


THRESHOLD = constant("threshold", 0.9)
# A run with a white picture fails.
model(
    "throws-on-white",
    [
        *pooled(),
        *light(),
        node("Mul", ["light", "much"], ["far"]),
        node("Cast", ["far"], ["index"], to=INDEX),
        node("Gather", ["nothing", "index"], ["zero"]),
        node("Add", ["means", "zero"], ["logits"]),
    ],
    [logits],
    weights=[THRESHOLD, constant("much", 1e3), constant("nothing", [0.0])],
    reading=None,
)
# A run with a white picture does not end.
rounds = helper.make_graph(
    [node("Identity", ["go"], ["on"]), node("Mul", ["sum", "sum"], ["next"])],
    "rounds",
    [value("round", [], INDEX), value("go", [], TensorProto.BOOL), value("sum", [])],
    [value("on", [], TensorProto.BOOL), value("next", [])],
)
model(
    "hangs-on-white",
    [
        *pooled(),
        *light(),
        node("Mul", ["light", "much"], ["many"]),
        node("Cast", ["many"], ["trips"], to=INDEX),
        node("Loop", ["trips", "", "zero"], ["total"], body=rounds),
        node("Add", ["means", "total"], ["logits"]),
    ],
    [logits],
    weights=[THRESHOLD, constant("much", 1e13), constant("zero", 0.0)],
    reading=None,
)

# --- inputs
model(
    "nhwc",
    [node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]), *pooled(source="planes"), gemm],
    [logits],
    [value("image", ["N", 4, 4, 3])],
    [WEIGHT, BIAS],
)
# No side is written down: only the Transpose tells where the channels are.
model(
    "nhwc-open",
    [node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]), *pooled(source="planes"), gemm],
    [logits],
    [value("image", ["N", "H", "W", "C"])],
    [WEIGHT, BIAS],
)
model("half", pooled("logits"), [value("logits", ["N", 3], HALF)], [value("image", ["N", 3, 4, 4], HALF)])
model(
    "bytes",
    [
        node("Cast", ["image"], ["floats"], to=FLOAT),
        node("Div", ["floats", "range"], ["unit"]),
        node("Sub", ["unit", "one"], ["centred"]),
        node("Transpose", ["centred"], ["planes"], perm=[0, 3, 1, 2]),
        *pooled(source="planes"),
        gemm,
    ],
    [logits],
    [value("image", ["N", 4, 4, 3], BYTE)],
    [WEIGHT, BIAS, constant("range", 127.5), constant("one", 1)],
)
# Before IR 4 every initialiser was an input as well.
model(
    "old-ir",
    [*pooled(), gemm],
    [logits],
    [value("image", ["N", 3, 4, 4]), value("weight", [3, 3]), value("bias", [3])],
    [WEIGHT, BIAS],
    opset=7,
    ir=3,
)
model("gray", pooled("logits"), [value("logits", ["N", 1])], [value("image", ["N", 1, 4, 4])], reading=None)

# --- what the scores mean
same = lambda row: row
ending = lambda op, **axes: [*pooled(), node(op, ["means"], ["scores"], **axes)]
scores = value("scores", ["N", 3])
model("softmax", ending("Softmax", axis=1), [scores], reading=same)
model("log-softmax", ending("LogSoftmax", axis=1), [scores], reading=np.exp)
model("sigmoid", ending("Sigmoid"), [scores], reading=same)
model("multi-label", pooled("logits"), [logits], reading=sigmoid, problem_type="multi_label_classification")
model("softmax-of-the-batch", ending("Softmax", axis=0), [scores], reading=None)
model(
    "decomposed-softmax",
    [
        *pooled(),
        node("Exp", ["means"], ["powers"]),
        node("ReduceSum", ["powers", "class_axis"], ["sum"], keepdims=1),
        node("Div", ["powers", "sum"], ["scores"]),
    ],
    [scores],
    weights=[constant("class_axis", [1], np.int64)],
    reading=same,
)

# Probabilities whose sigmoid nobody sees behind the Clip.
model(
    "clipped-sigmoid",
    [*pooled(), node("Sigmoid", ["means"], ["shares"]), node("Clip", ["shares"], ["scores"])],
    [scores],
    reading=None,
)
# Logits that no operator tells.
model("logits-of-an-unknown-operator", [*pooled(), node("Sinh", ["means"], ["scores"])], [scores])

# --- which output
model(
    "two-outputs",
    [*pooled("logits"), node("Flatten", ["image"], ["features"], axis=1)],
    [value("features", ["N", 48]), logits],
    answers=1,
)
model("features-beside-logits", [*pooled(), gemm], [value("means", ["N", 3]), logits], weights=[WEIGHT, BIAS], answers=1)
model(
    "softmax-beside-logits",
    [*pooled(), gemm, node("Softmax", ["logits"], ["scores"], axis=1)],
    [scores, logits],
    weights=[WEIGHT, BIAS],
    answers=1,
)
model(
    "two-heads",
    [*pooled(), gemm, node("Gemm", ["means", "weight"], ["auxiliary"])],
    [logits, value("auxiliary", ["N", 3])],
    weights=[WEIGHT, BIAS],
    reading=None,
)
model(
    "convolution-at-the-end",
    [node("GlobalAveragePool", ["image"], ["pool"]), node("Conv", ["pool", "kernel", "bias"], ["logits"])],
    [value("logits", ["N", 3, 1, 1])],
    weights=[constant("kernel", numpy_helper.to_array(WEIGHT).reshape(3, 3, 1, 1)), BIAS],
)
# MLPerf's ResNet-50: TensorFlow's names, 1001 classes of which the first is none, and the class's index beside them.
random = np.random.default_rng(1001)
model(
    "background",
    [
        *pooled(source="input_tensor:0"),
        node("MatMul", ["means", "weight"], ["product"]),
        node("Softmax", ["product"], ["softmax_tensor:0"], axis=1),
        node("ArgMax", ["product"], ["ArgMax:0"], axis=1, keepdims=0),
    ],
    [value("softmax_tensor:0", ["N", 1001]), value("ArgMax:0", ["N"], INDEX)],
    [value("input_tensor:0", ["N", 3, 4, 4])],
    [constant("weight", (random.integers(-8, 9, (3, 1001)) * 0.5))],
    reading=lambda row: row[1:],
    labels=[f"c{index}" for index in range(1000)],
    kept=5,
)

# --- fixed batches
def fixed(name, batch, nodes, weights=(), **more):
    model(
        name,
        nodes,
        [value("logits", [batch, 3])],
        [value("image", [batch, 3, 4, 4])],
        [WEIGHT, BIAS, *weights],
        inner=[value("pool", [batch, 3, 1, 1])],
        **more,
    )


def reshaped(batch):
    """The batch is built into a Reshape, as tracing exporters do."""
    nodes = [node("GlobalAveragePool", ["image"], ["pool"]), node("Reshape", ["pool", "target"], ["means"]), gemm]
    return nodes, [constant("target", [batch, -1], np.int64)]


fixed("fixed-batch", 1, [*pooled(), gemm])
fixed("fixed-batch-reshape", 1, *reshaped(1))
fixed("fixed-batch-external", 1, *reshaped(1), external=True)
fixed("fixed-batch-4", 4, *reshaped(4))
beside = lambda: [
    node("Concat", ["means", "token"], ["longer"], axis=1),
    node("Slice", ["longer", "from", "to", "along"], ["shorter"]),
]
cut = [constant("from", [0], np.int64), constant("to", [3], np.int64), constant("along", [1], np.int64)]
last = node("Gemm", ["shorter", "weight", "bias"], ["logits"], transB=1)
fixed("fixed-batch-baked", 1, [*pooled(), *beside(), last], [constant("token", [[9]]), *cut])
fixed("fixed-batch-4-baked", 4, [*pooled(), *beside(), last], [constant("token", [[9]] * 4), *cut])
# Half of the batch's mean is added to each image, along an axis that only a run knows.
fixed(
    "fixed-batch-mixed",
    1,
    [
        *pooled(),
        node("Identity", ["batch_axis"], ["axis"]),
        node("ReduceSum", ["means", "axis"], ["mixed"], keepdims=1),
        node("Add", ["means", "mixed"], ["sum"]),
        node("Gemm", ["sum", "weight", "bias"], ["logits"], transB=1),
    ],
    [constant("batch_axis", [0], np.int64)],
)

# The input says that any number will do, and a node knows better.
traced = {"inputs": [value("image", ["N", 3, 4, 4])], "weights": [WEIGHT, BIAS, *reshaped(1)[1]]}
model("traced-batch", reshaped(1)[0], [logits], **traced)
token = constant("token", [[9]])
model("traced-batch-baked", [*pooled(), *beside(), last], [logits], weights=[WEIGHT, BIAS, token, *cut])

# --- images that are not alone
# Dynamic quantisation takes its steps from the range of the whole batch.
model(
    "dynamically-quantised",
    [
        node("DynamicQuantizeLinear", ["image"], ["quantised", "step", "zero"]),
        node("DequantizeLinear", ["quantised", "step", "zero"], ["values"]),
        *pooled(source="values"),
        gemm,
    ],
    [logits],
    weights=[WEIGHT, BIAS],
)
# Exported in training mode: dice for every answer.
model(
    "dropout-in-training",
    [node("Dropout", ["image", "ratio", "training"], ["kept"]), *pooled(source="kept"), gemm],
    [logits],
    weights=[WEIGHT, BIAS, constant("ratio", 0.5), constant("training", True, np.bool_)],
    reading=None,
)
# And statistics of the batch instead of those that were learned.
model(
    "batch-norm-in-training",
    [
        node("BatchNormalization", ["image", "ones", "none", "none", "ones"], ["normal", "m", "v"], training_mode=1),
        node("Relu", ["normal"], ["positive"]),
        *pooled(source="positive"),
        gemm,
    ],
    [logits],
    weights=[WEIGHT, BIAS, constant("ones", [1] * 3), constant("none", [0] * 3)],
    reading=None,
)

# --- pictures that are normalised inside
model(
    "normalises-itself",
    [
        node("Sub", ["image", "mean"], ["centred"]),
        node("Div", ["centred", "std"], ["normal"]),
        *pooled(source="normal"),
        gemm,
    ],
    [logits],
    weights=[WEIGHT, BIAS, *(constant(name, np.full((1, 3, 1, 1), 0.5)) for name in ["mean", "std"])],
    reading=None,
)

lines = [f"{json.dumps(name)}: {json.dumps(answers)}" for name, answers in EXPECTED.items()]
(HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
