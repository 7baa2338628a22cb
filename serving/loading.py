"""A version of a model in memory; importing this module imports TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from registry.layout import MODEL_CARD, WARM_UP_REQUESTS
from serving.requests import Arrays, RequestError, TensorSpec

_ASSERTED = "assertion failed: ["
_MAX_CARD_BYTES = 4 << 20


class LoadedVersion:
    """A SavedModel that was loaded and tried, with signatures whose tensors all are rows.

    Attributes:
      number: its version.
      signatures: the inputs of each signature, by name.
      signature_defs: TensorFlow's `SignatureDef` of each, by name.
      card: the model card, None where there is none that can be read.
    """

    def __init__(self, directory: Path) -> None:
        """Loads `<version>/` and runs the warm-up requests that lie in it.

        Raises:
          Exception: whatever TensorFlow raises for a model that is damaged.
        """
        self.number = int(directory.name)
        self._module = tf.saved_model.load(str(directory))
        self._functions = dict(self._module.signatures)
        for name, function in self._functions.items():
            _require_rows(name, function)
        self.signatures = {
            name: {key: _spec(spec) for key, spec in function.structured_input_signature[1].items()}
            for name, function in self._functions.items()
        }
        self.signature_defs = _signature_defs(directory)
        self.card = _card(directory / MODEL_CARD)
        self._warm_up(directory / WARM_UP_REQUESTS)

    @property
    def latent_dim(self) -> int | None:
        """Size of a latent; None where the model takes none."""
        spec = self.signatures.get("from_latent", {}).get("latent")
        return spec.shape[-1] if spec else None

    def signature_def_json(self) -> dict[str, Any]:
        """The signatures as the REST API's metadata has them."""
        found = {
            name: {
                "inputs": {key: _tensor_info(info) for key, info in signature.inputs.items()},
                "outputs": {key: _tensor_info(info) for key, info in signature.outputs.items()},
                "method_name": signature.method_name,
            }
            for name, signature in self.signature_defs.items()
        }
        return {"signature_def": found}

    def call(self, signature: str, inputs: Arrays) -> Arrays:
        """Runs a signature.

        Raises:
          RequestError: when the model refuses the inputs; the message is its own.
        """
        try:
            outputs = self._functions[signature](
                **{name: tf.constant(array) for name, array in inputs.items()}
            )
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(_reason(error)) from None
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            self.call(request.model_spec.signature_name, inputs)


def _require_rows(name: str, function: Any) -> None:
    """Requests are counted, joined and split by rows, so each tensor has to have them."""
    tensors = {**function.structured_input_signature[1], **function.structured_outputs}
    for key, spec in tensors.items():
        if not spec.shape.rank or spec.shape[0] is not None:
            raise ValueError(
                f"signature {name}: {key} has the shape {spec.shape}; expected a first dimension "
                "of any size, one row per image"
            )


def _spec(spec: tf.TensorSpec) -> TensorSpec:
    dtype = np.dtype(object) if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype)
    return TensorSpec(dtype, tuple(spec.shape.as_list()))


def _signature_defs(directory: Path) -> dict[str, Any]:
    content = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    signatures = content.meta_graphs[0].signature_def.items()
    return {name: signature for name, signature in signatures if not name.startswith("__")}


def _tensor_info(info: Any) -> dict[str, Any]:
    """Includes the fields that have their default, which protobuf's own JSON leaves out."""
    shape = info.tensor_shape
    return {
        "dtype": types_pb2.DataType.Name(info.dtype),
        "tensor_shape": {
            "dim": [{"size": str(dim.size), "name": dim.name} for dim in shape.dim],
            "unknown_rank": shape.unknown_rank,
        },
        "name": info.name,
    }


def _card(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            return None
        card = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return card if isinstance(card, dict) else None


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """The message of an assertion in the model, without the places in its graph."""
    lines = [line for line in str(error.message).splitlines() if _ASSERTED in line]
    if not lines:
        return str(error.message).strip()
    asserted = lines[0].partition(_ASSERTED)[2]
    return asserted.rpartition("]")[0]
