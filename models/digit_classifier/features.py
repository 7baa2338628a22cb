"""Features and logits from an exported classifier."""

import numpy as np
import tensorflow as tf

_BATCH = 1000


class FeatureExtractor:
    """Calls the classifier's SavedModel in batches."""

    def __init__(self, model_dir: str) -> None:
        """Loads a SavedModel as `run_fn` exports it."""
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
          ValueError: for another dtype or shape.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1) or not len(images):
            raise ValueError(
                f"expected uint8 [n >= 1, 28, 28, 1], got {images.dtype} {list(images.shape)}"
            )
        outputs = [
            self._signature(image=tf.constant(images[start : start + _BATCH]))
            for start in range(0, len(images), _BATCH)
        ]
        features = np.concatenate([output["features"].numpy() for output in outputs])
        return features, np.concatenate([output["logits"].numpy() for output in outputs])
