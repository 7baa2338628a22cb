"""The classifier's network."""

from typing import Any

import keras
from keras import layers

FEATURES = 64
_STAGES = ((16, 5, 2), (32, 3, 1), (48, 3, 2), (64, 3, 2))


def build_classifier(seed: int) -> keras.Model:
    """Builds a small convolutional classifier; the same seed gives the same weights.

    Returns:
      A model of uint8 images [n, 28, 28, 1] to features float32 [n, 64], the last hidden layer
      after its ReLU, and logits float32 [n, 10].
    """
    image = keras.Input((28, 28, 1), dtype="uint8", name="image")
    x: Any = layers.Rescaling(1 / 255)(image)
    for index, (channels, size, stride) in enumerate(_STAGES):
        x = layers.Conv2D(
            channels,
            size,
            stride,
            "same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed + index),
        )(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    initialiser = keras.initializers.HeNormal(seed + len(_STAGES))
    features = layers.Dense(FEATURES, "relu", kernel_initializer=initialiser, name="features")(
        layers.Flatten()(x)
    )
    dropped = layers.Dropout(0.3, seed=seed)(features)
    last = keras.initializers.GlorotUniform(seed + len(_STAGES) + 1)
    return keras.Model(image, [features, layers.Dense(10, kernel_initializer=last)(dropped)])
