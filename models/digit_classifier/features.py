"""Features and logits from an exported classifier."""

import numpy as np
import tensorflow as tf

from metrics.images import require_images

_BATCH = 1000


class FeatureExtractor:
    """Computes features and logits with an exported classifier, in batches."""

    def __init__(self, model_dir: str) -> None:
        """Loads a SavedModel that `export_classifier` wrote."""
        # The signature lives as long as the object it was loaded from.
        self._model = tf.saved_model.load(model_dir)
        self._signature = self._model.signatures["serving_default"]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the classifier.

        Args:
          images: uint8 [n, 28, 28, 1], n of 1 or more.

        Returns:
          Features float32 [n, d] and logits float32 [n, 10].

        Raises:
          ValueError: if the images have another dtype or shape.
        """
        require_images("images", images)
        outputs = [
            self._signature(image=tf.constant(images[start : start + _BATCH]))
            for start in range(0, len(images), _BATCH)
        ]
        features = np.concatenate([output["features"].numpy() for output in outputs])
        return features, np.concatenate([output["logits"].numpy() for output in outputs])
