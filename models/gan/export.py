"""The exported generator: a SavedModel whose rows each stand alone and are reproducible."""

import os

import keras
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from models.gan.networks import CLASSES, IMAGE_SHAPE, apply, to_pixels
from models.gan.settings import TrainSettings

ANY_DIGIT = -1
WARM_UP = os.path.join("assets.extra", "tf_serving_warmup_requests")

_LATENT, _DIGIT = 0, 1
# Rows run through the network this many at a time, the last ones padded: a kernel chosen for
# another batch size may round differently, and the same seed must give the same picture.
_ROWS = 16


class ServedGenerator(tf.Module):
    """The serving contract around a generator; see `docs/serving-contract.md`.

    Each signature takes N rows, N from 0 up. A digit outside -1..9 is an InvalidArgumentError that
    names the row and the value; so is a digit asked of an unconditional generator, and inputs of
    unequal numbers of rows.
    """

    def __init__(self, generator: keras.Model, settings: TrainSettings) -> None:
        super().__init__(name="served_generator")
        self._generator = generator
        self._settings = settings
        self.from_latent = tf.function(
            self._from_latent,
            input_signature=[
                tf.TensorSpec([None, settings.latent_dim], tf.float32, "latent"),
                tf.TensorSpec([None], tf.int64, "digit"),
            ],
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "seed"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def serve_png(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws PNG pictures.

        Args:
          seed: int64 [N], any value.
          digit: int64 [N], 0..9, or -1 for any.

        Returns:
          `image_bytes` string [N], each a PNG of 28x28 grey pixels; `digit` int64 [N], the digit
          that the generator was asked for, -1 when it is unconditional.
        """
        drawn = self.generate_pixels(seed, digit)
        encoded = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
        return {"image_bytes": encoded, "digit": drawn["digit"]}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "seed"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def generate_pixels(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws pixels: `image` uint8 [N, 28, 28, 1] and `digit` int64 [N]; see `serve_png`."""
        digit = self._checked(digit, seed)
        if self._settings.conditional:
            digit = tf.where(digit == ANY_DIGIT, tf.map_fn(_any_digit, seed), digit)
        latent = tf.map_fn(self._latent, seed, fn_output_signature=tf.float32)
        return {"image": to_pixels(self._draw(latent, digit)), "digit": digit}

    def _from_latent(self, latent: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws from latents.

        Args:
          latent: float32 [N, latent_dim].
          digit: int64 [N], 0..9, or -1 for any (then the digit follows from the row's latent).

        Returns:
          `image` float32 [N, 28, 28, 1] in [-1, 1] and `digit` int64 [N].
        """
        digit = self._checked(digit, latent)
        if self._settings.conditional:
            follows = tf.cast(tf.bitcast(tf.reduce_sum(latent, axis=1), tf.int32), tf.int64)
            digit = tf.where(digit == ANY_DIGIT, tf.map_fn(_any_digit, follows), digit)
        return {"image": self._draw(latent, digit), "digit": digit}

    def _latent(self, seed: tf.Tensor) -> tf.Tensor:
        pair, width = tf.stack([seed, _LATENT]), self._settings.latent_scale
        if self._settings.latent == "uniform":
            return tf.random.stateless_uniform(
                [self._settings.latent_dim], pair, -width, width, alg="philox"
            )
        return width * tf.random.stateless_normal([self._settings.latent_dim], pair, alg="philox")

    def _draw(self, latent: tf.Tensor, digit: tf.Tensor) -> tf.Tensor:
        count = tf.shape(latent)[0]
        padding = -count % _ROWS
        latent = tf.reshape(
            tf.pad(latent, [[0, padding], [0, 0]]), [-1, _ROWS, self._settings.latent_dim]
        )
        digit = tf.reshape(tf.pad(tf.maximum(digit, 0), [[0, padding]]), [-1, _ROWS])
        images = tf.map_fn(
            lambda rows: apply(
                self._generator, rows[0], tf.cast(rows[1], tf.int32), training=False
            ),
            (latent, digit),
            fn_output_signature=tf.TensorSpec([_ROWS, *IMAGE_SHAPE], tf.float32),
        )
        return tf.reshape(images, [-1, *IMAGE_SHAPE])[:count]

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


def _any_digit(seed: tf.Tensor) -> tf.Tensor:
    pair = tf.stack([seed, _DIGIT])
    return tf.random.stateless_uniform([], pair, 0, CLASSES, tf.int64, alg="philox")


def export_generator(generator: keras.Model, settings: TrainSettings, directory: str) -> None:
    """Writes the SavedModel with the signatures of the serving contract.

    Args:
      generator: from `build_generator`, usually the moving average.
      settings: those it was built with.
      directory: created; must not hold a SavedModel yet.
    """
    module = ServedGenerator(generator, settings)
    tf.saved_model.save(
        module,
        directory,
        signatures={
            "serving_default": module.serve_png,
            "generate_pixels": module.generate_pixels,
            "from_latent": module.from_latent,
        },
    )
    _write_warm_up(settings, os.path.join(directory, WARM_UP))


def _write_warm_up(settings: TrainSettings, path: str) -> None:
    """Requests with which TensorFlow Serving tries each signature before it serves a version.

    The first call of a signature takes many times as long as those after it; see
    https://www.tensorflow.org/tfx/serving/saved_model_warmup.
    """
    any_digit = tf.constant([ANY_DIGIT], tf.int64)
    seeded = {"seed": tf.constant([0], tf.int64), "digit": any_digit}
    latent = {"latent": tf.zeros([1, settings.latent_dim]), "digit": any_digit}
    requests = {"serving_default": seeded, "generate_pixels": seeded, "from_latent": latent}
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
