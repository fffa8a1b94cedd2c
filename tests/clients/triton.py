"""NVIDIA's Triton client over either of its wires, so that one test serves both."""
import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

# The name of an error, as each wire tells it.
STATUS = {
    "http": {"invalid": "400", "unknown": "404", "late": "504"},
    "grpc": {
        "invalid": "StatusCode.INVALID_ARGUMENT",
        "unknown": "StatusCode.NOT_FOUND",
        "late": "StatusCode.DEADLINE_EXCEEDED",
    },
}


class Wire:
    def __init__(self, name, running):
        self.name = name
        self.library = {"http": tritonclient.http, "grpc": tritonclient.grpc}[name]
        self.client = self.library.InferenceServerClient({"http": running.address, "grpc": running.grpc}[name])
        # Over gRPC answers are messages unless asked for otherwise; as JSON, 64-bit integers are strings and zeros left out.
        self.as_json = {"as_json": True} if name == "grpc" else {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def inputs(self, tensors):
        made = []
        for name, values in tensors.items():
            tensor = self.library.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            made.append(tensor.set_data_from_numpy(values))
        return made

    def infer(self, model, tensors, outputs=None, classes=0, **options):
        wanted = outputs and [self.library.InferRequestedOutput(name, class_count=classes) for name in outputs]
        return self.client.infer(model, self.inputs(tensors), outputs=wanted, **options)

    def metadata(self, model):
        return self.client.get_model_metadata(model, **self.as_json)

    def config(self, model):
        document = self.client.get_model_config(model, **self.as_json)
        return document["config"] if self.as_json else document

    def statistics(self, model):
        (document,) = self.client.get_inference_statistics(model, **self.as_json)["model_stats"]
        return document

    def index(self):
        document = self.client.get_model_repository_index(**self.as_json)
        return document["models"] if self.as_json else document

    def status(self, error):
        """`invalid`, `unknown` or `late`, or the status itself where it is none of them."""
        names = {status: name for name, status in STATUS[self.name].items()}
        return names.get(error.status(), error.status())


def photos(*pictures, shape=None):
    """Encoded photos as one tensor of bytes: [N] unless told otherwise."""
    tensor = np.array(pictures, np.object_)
    return {"image": tensor if shape is None else tensor.reshape(shape)}


def described(tensors):
    return [(tensor["name"], tensor["datatype"], [int(length) for length in tensor["shape"]]) for tensor in tensors]
