"""Draws digits from an exported generator."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from metrics.images import require_pictures
from models import storage

ANY_DIGIT = -1
# What is asked for where samples are looked at: ten rows of the digits in turn.
SHOWN = np.arange(100) % 10
_BATCH = 1000


class GeneratorError(ValueError):
    """A model that is not a generator as `docs/serving-contract.md` has it."""


@dataclass(frozen=True)
class Samples:
    """Generated digits.

    Attributes:
      images: uint8 [n, 28, 28, 1].
      asked: int [n], the digits asked for; None when the generator is unconditional.
    """

    images: np.ndarray
    asked: np.ndarray | None

    def head(self, count: int) -> "Samples":
        """The first `count`."""
        return Samples(self.images[:count], None if self.asked is None else self.asked[:count])

    @property
    def strata(self) -> np.ndarray:
        """What was fixed when they were drawn, int [n]."""
        return np.zeros(len(self.images), int) if self.asked is None else self.asked


class Generator:
    """An exported generator, called in batches."""

    def __init__(self, model_dir: str) -> None:
        """Loads the SavedModel in a folder or at a URI.

        Raises:
          GeneratorError: when there is none, or it draws no pictures by `generate_pixels`.
          OSError: when the store it is on cannot be read.
        """
        with storage.local_copy(model_dir) as place:
            try:
                # The signatures live as long as the object they were loaded from.
                self._model = tf.saved_model.load(place)
            except (OSError, ValueError, RuntimeError, LookupError, tf.errors.OpError) as error:
                raise GeneratorError(f"{model_dir}: {_first_line(error)}") from None
        self._name = model_dir
        self._require("generate_pixels")
        self.conditional = int(self._call([0], [ANY_DIGIT])["digit"][0]) != ANY_DIGIT

    def draw(self, asked: np.ndarray, seed: int) -> Samples:
        """Draws a picture for each of the digits `asked`, int [n], with consecutive seeds.

        An unconditional generator draws as many, and is not asked for any.

        Raises:
          GeneratorError: when a call fails, or gives no pictures uint8 [n, 28, 28, 1].
        """
        images = []
        for start in range(0, len(asked), _BATCH):
            digits = asked[start : start + _BATCH]
            if not self.conditional:
                digits = np.full(len(digits), ANY_DIGIT)
            seeds = np.arange(len(digits), dtype=np.int64) + seed + start
            images.append(self._call(seeds, digits)["image"])
            if len(images[-1]) != len(digits):
                raise GeneratorError(
                    f"{self._name}: asked for {len(digits)} pictures, got {len(images[-1])}"
                )
        return Samples(np.concatenate(images), asked if self.conditional else None)

    def interpolate(self, latent: str, seed: int, rows: int = 10, columns: int = 8) -> np.ndarray:
        """Walks from one latent to another, a walk per row; row i asks for digit i.

        Args:
          latent: `normal`, then along the sphere, or `uniform` in -1..1, then along the line.
          seed: of the ends.
          rows: walks, up to 10.
          columns: pictures of each.

        Returns:
          uint8 [rows, columns, 28, 28, 1].

        Raises:
          GeneratorError: when `from_latent` is missing or is another than it should be.
        """
        self._require("from_latent")
        try:
            images = self._walk(latent, seed, rows, columns)
        except (LookupError, TypeError, ValueError, tf.errors.OpError) as error:
            raise GeneratorError(
                f"{self._name}: the signature from_latent is not that of docs/serving-contract.md: "
                f"{type(error).__name__}: {_first_line(error)}"
            ) from None
        if not np.isfinite(images).all():
            raise GeneratorError(f"{self._name}: from_latent gives NaN or infinite pixels")
        return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)

    def _walk(self, latent: str, seed: int, rows: int, columns: int) -> np.ndarray:
        """What `from_latent` draws for `interpolate`, float32 [rows, columns, 28, 28, 1]."""
        from_latent = self._model.signatures["from_latent"]
        size = from_latent.structured_input_signature[1]["latent"].shape[1]
        random = np.random.default_rng(seed)
        share = np.linspace(0, 1, columns)[:, np.newaxis]
        if latent == "uniform":
            ends = random.uniform(-1, 1, size=(2, rows, 1, size))
            first, second = 1 - share, share
        else:
            ends = random.normal(size=(2, rows, 1, size))
            first, second = np.cos(share * np.pi / 2), np.sin(share * np.pi / 2)
        walks = (first * ends[0] + second * ends[1]).reshape(-1, size)
        digits = np.repeat(np.arange(rows) if self.conditional else ANY_DIGIT, columns)
        digits = np.resize(digits, len(walks)).astype(np.int64)
        drawn = from_latent(latent=tf.constant(walks, tf.float32), digit=tf.constant(digits))
        return drawn["image"].numpy().reshape(rows, columns, 28, 28, 1)

    def _require(self, signature: str) -> None:
        found = sorted(self._model.signatures)
        if signature not in found:
            raise GeneratorError(
                f"{self._name}: the signature {signature} is missing; found: "
                f"{', '.join(found) or 'none'}. Expected serving_default, generate_pixels and "
                "from_latent, as docs/serving-contract.md has them: export the model with "
                "export_generator of models/gan/export.py, or give it that signature too"
            )

    def _call(self, seeds: Any, digits: Any) -> dict[str, np.ndarray]:
        try:
            drawn = self._model.signatures["generate_pixels"](
                seed=tf.constant(seeds, tf.int64), digit=tf.constant(digits, tf.int64)
            )
            found = {name: drawn[name].numpy() for name in ("image", "digit")}
            require_pictures("generate_pixels", found["image"])
        except KeyError as error:
            raise GeneratorError(f"{self._name}: generate_pixels gives no {error}") from None
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise GeneratorError(f"{self._name}: {_first_line(error)}") from None
        return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
