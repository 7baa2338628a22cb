"""The export that this project had before `keras.export.ExportArchive`."""

from pathlib import Path

import keras
import tensorflow as tf

from models.gan.export import ServedGenerator, write_warm_up
from models.gan.settings import TrainSettings
from registry.layout import WARM_UP_REQUESTS


def export_as_before(generator: keras.Model, settings: TrainSettings, folder: Path) -> None:
    """Saves a tf.Module that holds the Keras model: Python loads it, a session does not."""
    served = ServedGenerator(generator, settings)
    digit = tf.TensorSpec([None], tf.int64, "digit")
    seeded = [tf.TensorSpec([None], tf.int64, "seed"), digit]
    latent = [tf.TensorSpec([None, settings.latent_dim], tf.float32, "latent"), digit]
    module = tf.Module()
    module.generator = generator
    signatures = {
        "serving_default": tf.function(served.serve_png, seeded),
        "generate_pixels": tf.function(served.generate_pixels, seeded),
        "from_latent": tf.function(served.from_latent, latent),
    }
    tf.saved_model.save(module, str(folder), signatures)
    write_warm_up(signatures, settings, str(folder / WARM_UP_REQUESTS))
