"""The exported generator: a SavedModel whose rows each stand alone and are reproducible."""

import hashlib
import json
import os
from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from models.gan.image_mark import ImageMark
from models.gan.interruption import recipe
from models.gan.networks import CLASSES, IMAGE_SHAPE, apply, to_pixels
from models.gan.settings import TrainSettings
from registry.layout import WARM_UP_REQUESTS

ANY_DIGIT = -1

_LATENT, _DIGIT = 0, 1
_DIGEST_DIGITS = 16
# Rows run through the network this many at a time, the last ones padded: a kernel chosen for
# another batch size may round differently, and the same seed must give the same image.
_ROWS = 16


class ServedGenerator:
    """The signatures of `docs/serving-contract.md` for a generator, as functions of tensors.

    Each function takes N rows, N from 0 up. It raises an InvalidArgumentError that names the row
    and the value for a digit outside -1..9, for a digit given to an unconditional generator, and
    for a latent that gives no finite image; and one for inputs of unequal numbers of rows.
    """

    def __init__(self, generator: keras.Model, settings: TrainSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._mark = ImageMark(_origin(generator, settings))

    def serve_png(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Generates PNG images.

        Args:
          seed: int64 [N], any value.
          digit: int64 [N], 0..9, or -1 for any.

        Returns:
          `image_bytes` string [N], each a PNG of 28x28 gray pixels with the marks of `ImageMark`;
          `digit` int64 [N], the digit that the generator was given, -1 when it is unconditional.
        """
        drawn = self.generate_pixels(seed, digit)
        encoded = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
        marked = self._mark.add(encoded, seed, drawn["digit"])
        return {"image_bytes": marked, "digit": drawn["digit"]}

    def generate_pixels(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Generates pixels: `image` uint8 [N, 28, 28, 1] and `digit` int64 [N]; see `serve_png`."""
        digit = self._checked(digit, seed)
        if self._settings.conditional:
            digit = tf.where(digit == ANY_DIGIT, tf.map_fn(_any_digit, seed), digit)
        latent = tf.map_fn(self._latent, seed, fn_output_signature=tf.float32)
        return {"image": to_pixels(self._draw(latent, digit)), "digit": digit}

    def from_latent(self, latent: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Generates images from latents.

        Args:
          latent: float32 [N, latent_dim], finite and small enough for finite images.
          digit: int64 [N], 0..9, or -1 for any (then the digit follows from the row's latent).

        Returns:
          `image` float32 [N, 28, 28, 1] in [-1, 1] and `digit` int64 [N].
        """
        digit = self._checked(digit, latent)
        if self._settings.conditional:
            # A sum of integers: a sum of floats depends on the order that a CPU adds them in.
            bits = tf.cast(tf.bitcast(latent, tf.int32), tf.int64)
            follows = tf.map_fn(_any_digit, tf.reduce_sum(bits, axis=1))
            digit = tf.where(digit == ANY_DIGIT, follows, digit)
        return {"image": self._draw(latent, digit), "digit": digit}

    def _latent(self, seed: tf.Tensor) -> tf.Tensor:
        pair, width = tf.stack([seed, _LATENT]), self._settings.latent_scale
        if self._settings.latent == "uniform":
            return tf.random.stateless_uniform(
                [self._settings.latent_dim], pair, -width, width, alg="philox"
            )
        return width * tf.random.stateless_normal([self._settings.latent_dim], pair, alg="philox")

    def _draw(self, given: tf.Tensor, digit: tf.Tensor) -> tf.Tensor:
        count = tf.shape(given)[0]
        padding = -count % _ROWS
        latent = tf.reshape(
            tf.pad(given, [[0, padding], [0, 0]]), [-1, _ROWS, self._settings.latent_dim]
        )
        digit = tf.reshape(tf.pad(tf.maximum(digit, 0), [[0, padding]]), [-1, _ROWS])
        images = tf.map_fn(
            lambda rows: apply(
                self._generator, rows[0], tf.cast(rows[1], tf.int32), training=False
            ),
            (latent, digit),
            fn_output_signature=tf.TensorSpec([_ROWS, *IMAGE_SHAPE], tf.float32),
        )
        return _finite(tf.reshape(images, [-1, *IMAGE_SHAPE])[:count], given)

    def _checked(self, digit: tf.Tensor, beside: tf.Tensor) -> tf.Tensor:
        """The digits, once they are as many as the rows `beside` them, and each is allowed."""
        rows = tf.shape(beside)[0]
        unequal = tf.strings.format(
            "digit has {} rows, and what it goes with has {}", (tf.size(digit), rows)
        )
        highest = CLASSES - 1 if self._settings.conditional else ANY_DIGIT
        wrong = tf.where((digit < ANY_DIGIT) | (digit > highest))[:1, 0]
        expected = "-1..9" if self._settings.conditional else "-1: this generator takes no digit"
        message = tf.strings.format(
            f"digit must be {expected}; row {{}} has {{}}", (wrong, tf.gather(digit, wrong))
        )
        checks = [
            tf.debugging.Assert(tf.size(digit) == rows, [unequal]),
            tf.debugging.Assert(tf.size(wrong) == 0, [message]),
        ]
        with tf.control_dependencies(checks):
            return tf.identity(digit)


def _origin(generator: keras.Model, settings: TrainSettings) -> dict[str, str]:
    """What an image tells of its generator: digests of the weights and of the recipe."""
    weights = hashlib.sha256()
    for value in generator.get_weights():
        weights.update(value.tobytes())
    values = hashlib.sha256(json.dumps(recipe(settings), sort_keys=True).encode())
    digests = {"weights": weights, "recipe": values}
    named = {name: digest.hexdigest()[:_DIGEST_DIGITS] for name, digest in digests.items()}
    return {"Software": "mnist-gan-tfx"} | named


def _any_digit(seed: tf.Tensor) -> tf.Tensor:
    pair = tf.stack([seed, _DIGIT])
    return tf.random.stateless_uniform([], pair, 0, CLASSES, tf.int64, alg="philox")


def _finite(images: tf.Tensor, latent: tf.Tensor) -> tf.Tensor:
    """The images, after a check that they and their latents are finite."""
    is_finite = tf.reduce_all(tf.math.is_finite(latent), axis=1) & tf.reduce_all(
        tf.math.is_finite(images), axis=[1, 2, 3]
    )
    wrong = tf.where(~is_finite)[:1, 0]
    size = tf.where(tf.math.is_finite(latent), tf.abs(latent), latent.dtype.max)
    worst = tf.gather(latent, tf.argmax(size, axis=1)[:, tf.newaxis], axis=1, batch_dims=1)
    message = tf.strings.format(
        "latent must be finite and give a finite image; row {} has {}",
        (wrong, tf.gather(worst[:, 0], wrong)),
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.size(wrong) == 0, [message])]):
        return tf.identity(images)


def export_generator(generator: keras.Model, settings: TrainSettings, directory: str) -> None:
    """Writes the SavedModel with the signatures of the serving contract.

    Args:
      generator: from `build_generator`, usually the moving average.
      settings: those it was built with.
      directory: created; must not hold a SavedModel yet.
    """
    served = ServedGenerator(generator, settings)
    digit = tf.TensorSpec([None], tf.int64, "digit")
    seeded = [tf.TensorSpec([None], tf.int64, "seed"), digit]
    latent = [tf.TensorSpec([None, settings.latent_dim], tf.float32, "latent"), digit]
    archive = keras.export.ExportArchive()
    # The archive saves each variable that an endpoint reads, once. `track(generator)` would save
    # the Keras variables around them as well, and a second copy under every one.
    signatures = {
        name: archive.add_endpoint(name, function, specs)
        for name, function, specs in (
            ("serving_default", served.serve_png, seeded),
            ("generate_pixels", served.generate_pixels, seeded),
            ("from_latent", served.from_latent, latent),
        )
    }
    archive.write_out(directory, verbose=False)
    write_warm_up(signatures, settings, os.path.join(directory, WARM_UP_REQUESTS))


def write_warm_up(
    signatures: dict[str, Callable[..., dict[str, tf.Tensor]]], settings: TrainSettings, path: str
) -> None:
    """Writes a request for each signature, with the response of the generator in this process.

    TensorFlow Serving sends the requests to a version before it serves that, since the first call
    of a signature takes many times as long as those after it, and does not look at the responses:
    https://www.tensorflow.org/tfx/serving/saved_model_warmup. ServingCheck compares them with what
    the SavedModel gives.

    Args:
      signatures: by name, each a function of the inputs of `docs/serving-contract.md`.
      settings: of the generator, for its digits and the size of its latents.
      path: of the TFRecord file; its folder is created.
    """
    digits = tf.range(ANY_DIGIT, CLASSES, dtype=tf.int64)
    rows = len(digits)
    if not settings.conditional:
        digits = tf.fill([rows], tf.constant(ANY_DIGIT, tf.int64))
    latent = tf.random.stateless_normal([rows, settings.latent_dim], [0, 0])
    seeded = {"seed": tf.range(rows, dtype=tf.int64), "digit": digits}
    tf.io.gfile.makedirs(os.path.dirname(path))
    # On the CPU, which every machine has: a GPU rounds otherwise.
    with tf.io.TFRecordWriter(path) as writer, tf.device("CPU"):
        for name, function in signatures.items():
            inputs = {"latent": latent, "digit": digits} if name == "from_latent" else seeded
            log = prediction_log_pb2.PredictLog(
                request=predict_pb2.PredictRequest(inputs=_protos(inputs)),
                response=predict_pb2.PredictResponse(outputs=_protos(function(**inputs))),
            )
            log.request.model_spec.signature_name = name
            log.response.model_spec.signature_name = name
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def _protos(tensors: dict[str, tf.Tensor]) -> dict[str, tensor_pb2.TensorProto]:
    return {name: tf.make_tensor_proto(tensor) for name, tensor in tensors.items()}
