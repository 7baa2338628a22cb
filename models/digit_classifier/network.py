"""The classifier's network."""

from typing import Any

import keras
from keras import layers

FEATURES = 96

# Channels, kernel and stride of each convolution; none is padded, MNIST's edge is black.
_STAGES = ((24, 5, 2), (48, 3, 2), (96, 3, 1))


def build_classifier(seed: int) -> keras.Model:
    """Builds a small convolutional classifier; the same seed gives the same weights.

    Returns:
      A model of uint8 images [n, 28, 28, 1] to features float32 [n, 96], the last hidden layer
      after its ReLU, and logits float32 [n, 10].
    """
    image = keras.Input((28, 28, 1), dtype="uint8", name="image")
    x: Any = layers.Rescaling(1 / 255)(image)
    for index, (channels, size, stride) in enumerate(_STAGES):
        initializer = keras.initializers.HeNormal(seed + index)
        x = layers.Conv2D(channels, size, stride, kernel_initializer=initializer)(x)
        if index:
            x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    initializer = keras.initializers.HeNormal(seed + len(_STAGES))
    x = layers.Dense(FEATURES, kernel_initializer=initializer)(layers.Flatten()(x))
    features = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    last = keras.initializers.GlorotUniform(seed + len(_STAGES) + 1)
    return keras.Model(image, [features, layers.Dense(10, kernel_initializer=last)(features)])
