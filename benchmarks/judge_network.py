"""A classifier of another shape than the pipeline's, as an independent judge of digits.

The pipeline's `DigitClassifier` has strided convolutions without padding, and selects the generator
that is exported. This one has padded 3x3 convolutions and max-pooling, and no training sees it.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

_BATCH_SIZE = 128
_SHIFT = 2  # pixels


def train_judge(images: np.ndarray, labels: np.ndarray, steps: int) -> keras.Model:
    """Trains the network, always the same but for rounding: 2,400 steps take two minutes.

    Args:
      images: uint8 [n, 28, 28, 1].
      labels: int64 [n], 0..9.
      steps: updates.

    Returns:
      A model of float32 or uint8 images [n, 28, 28, 1], 0..255, to features [n, 128] and logits
      [n, 10].
    """
    keras.utils.set_random_seed(7)
    network = _build()
    classifier = keras.Model(network.input, network.output[1])
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(rate), loss)
    digits = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels), seed=1)
    batches = digits.repeat().map(_shift).batch(_BATCH_SIZE)
    classifier.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)
    return network


def _shift(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    border = [[_SHIFT, _SHIFT], [_SHIFT, _SHIFT], [0, 0]]
    padded = tf.pad(tf.cast(image, tf.float32), border)
    return tf.image.random_crop(padded, (28, 28, 1)), label


def _build() -> keras.Model:
    x = image = keras.Input((28, 28, 1))
    x = layers.Rescaling(1 / 255)(x)
    for convolutions, channels in ((2, 32), (2, 64), (1, 96)):
        for _ in range(convolutions):
            x = _finish(layers.Conv2D(channels, 3, padding="same")(x))
        x = layers.MaxPooling2D(2)(x)
    features = _finish(layers.Dense(128)(layers.Flatten()(x)))
    return keras.Model(image, [features, layers.Dense(10)(features)])


def _finish(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
