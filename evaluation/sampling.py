"""Generates images with an exported generator."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

import storage
from errors import UserError
from metrics.images import require_images

# The value of a signature's input `digit` that asks for any digit (docs/serving-contract.md).
ANY_DIGIT = -1
# The labels of the images that reports show: ten rows of 0 to 9.
GRID_LABELS = np.arange(100) % 10
_BATCH = 1000
_UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, LookupError, tf.errors.OpError)
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # a checkpoint's description of itself


class GeneratorError(UserError):
    """A model does not fulfill `docs/serving-contract.md`."""


@dataclass(frozen=True)
class Samples:
    """Generated images.

    Attributes:
      images: uint8 [n, 28, 28, 1].
      labels: int [n], what they were generated for; None for an unconditional generator.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def head(self, count: int) -> "Samples":
        """Returns the first `count` samples."""
        return Samples(self.images[:count], None if self.labels is None else self.labels[:count])

    @property
    def strata(self) -> np.ndarray:
        """The labels, int [n]; all 0 for an unconditional generator."""
        return np.zeros(len(self.images), int) if self.labels is None else self.labels


class Generator:
    """An exported generator, called in batches.

    Attributes:
      identity: SHA-256 over its weights, signatures and first PNG images, hexadecimal. Exports of
        the same network have the same identity, although their files differ.
      conditional: whether it generates images of a given label.
    """

    def __init__(self, model_dir: str) -> None:
        """Loads the SavedModel in a folder or at a URI.

        Raises:
          GeneratorError: If there is none, or `generate_pixels` does not generate images.
          OSError: If the store cannot be read.
        """
        with storage.local_copy(model_dir) as place:
            try:
                # The signatures live as long as the object they were loaded from.
                self._model = tf.saved_model.load(place)
                self.identity = _identity(place, self._model.signatures)
            except _UNREADABLE as error:
                raise GeneratorError(_first_line(error), model_dir) from None
        self._name = model_dir
        self._require("generate_pixels")
        self.conditional = int(self._call([0], [ANY_DIGIT])["digit"][0]) != ANY_DIGIT

    def sample(self, labels: np.ndarray, seed: int) -> Samples:
        """Generates an image for each label, with consecutive seeds.

        Args:
          labels: int [n], 0 to 9; an unconditional generator uses only their number.
          seed: seed of the first image.

        Raises:
          GeneratorError: If a call fails, or does not return images uint8 [n, 28, 28, 1].
        """
        images = []
        for start in range(0, len(labels), _BATCH):
            digits = labels[start : start + _BATCH]
            if not self.conditional:
                digits = np.full(len(digits), ANY_DIGIT)
            seeds = np.arange(len(digits), dtype=np.int64) + seed + start
            images.append(self._call(seeds, digits)["image"])
            if len(images[-1]) != len(digits):
                raise GeneratorError(
                    f"requested {len(digits)} images, got {len(images[-1])}", self._name
                )
        return Samples(np.concatenate(images), labels if self.conditional else None)

    def draw(self, digits: np.ndarray, seed: int) -> list[bytes]:
        """Generates a PNG file for each digit, with consecutive seeds.

        Args:
          digits: int64 [n], -1 to 9.
          seed: seed of the first image.

        Raises:
          GeneratorError: If `serving_default` is missing, or a call fails.
        """
        self._require("serving_default")
        seeds = np.arange(seed, seed + len(digits), dtype=np.int64)
        try:
            output = self._model.signatures["serving_default"](
                seed=tf.constant(seeds), digit=tf.constant(digits, tf.int64)
            )
            return output["image_bytes"].numpy().tolist()
        except (LookupError, TypeError, ValueError, tf.errors.OpError) as error:
            raise GeneratorError(_first_line(error), self._name) from None

    def interpolate(self, latent: str, seed: int, rows: int = 10, columns: int = 8) -> np.ndarray:
        """Generates images along paths between two latents, one path per row.

        Args:
          latent: distribution of the latents: `normal`, whose paths run along the sphere, or
            `uniform` in -1 to 1, whose paths are straight.
          seed: seed of the ends.
          rows: number of paths, up to 10; row i has label i.
          columns: images per path.

        Returns:
          uint8 [rows, columns, 28, 28, 1].

        Raises:
          GeneratorError: If the signature `from_latent` is missing or does not fulfill the
            contract.
        """
        self._require("from_latent")
        try:
            images = self._interpolate(latent, seed, rows, columns)
        except (LookupError, TypeError, ValueError, tf.errors.OpError) as error:
            raise GeneratorError(
                "the signature from_latent is not the one of docs/serving-contract.md: "
                f"{type(error).__name__}: {_first_line(error)}",
                self._name,
            ) from None
        if not np.isfinite(images).all():
            raise GeneratorError("from_latent gives NaN or infinite pixels", self._name)
        return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)

    def _interpolate(self, latent: str, seed: int, rows: int, columns: int) -> np.ndarray:
        """Returns what `from_latent` generates, float32 [rows, columns, 28, 28, 1]."""
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
        latents = (first * ends[0] + second * ends[1]).reshape(-1, size)
        digits = np.repeat(np.arange(rows) if self.conditional else ANY_DIGIT, columns)
        digits = np.resize(digits, len(latents)).astype(np.int64)
        output = from_latent(latent=tf.constant(latents, tf.float32), digit=tf.constant(digits))
        return output["image"].numpy().reshape(rows, columns, 28, 28, 1)

    def _require(self, signature: str) -> None:
        found = sorted(self._model.signatures)
        if signature not in found:
            raise GeneratorError(
                f"the signature {signature} is missing; found: {', '.join(found) or 'none'}, "
                "expected serving_default, generate_pixels and from_latent "
                "(docs/serving-contract.md)",
                self._name,
                "export the model with export_generator of models/gan/export.py, or add that "
                "signature",
            )

    def _call(self, seeds: Any, digits: Any) -> dict[str, np.ndarray]:
        try:
            output = self._model.signatures["generate_pixels"](
                seed=tf.constant(seeds, tf.int64), digit=tf.constant(digits, tf.int64)
            )
            found = {name: output[name].numpy() for name in ("image", "digit")}
            require_images("generate_pixels", found["image"])
        except KeyError as error:
            raise GeneratorError(f"generate_pixels has no output {error}", self._name) from None
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise GeneratorError(_first_line(error), self._name) from None
        return found


def _identity(model_dir: str, signatures: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    weights = tf.train.load_checkpoint(os.path.join(model_dir, "variables", "variables"))
    for name in sorted(set(weights.get_variable_to_shape_map()) - {_OBJECT_GRAPH}):
        value = np.asarray(weights.get_tensor(name))
        digest.update(f"{name} {value.dtype} {value.shape} ".encode() + value.tobytes())
    for name, signature in sorted(signatures.items()):
        for specs in (signature.structured_input_signature[1], signature.structured_outputs):
            found = [(key, spec.dtype, spec.shape) for key, spec in sorted(specs.items())]
            digest.update(f"{name} {found} ".encode())
    drawing = signatures.get("serving_default")
    if drawing is not None and "image_bytes" in drawing.structured_outputs:
        seeds = tf.range(10, dtype=tf.int64)
        drawn = drawing(seed=seeds, digit=tf.fill([10], tf.constant(ANY_DIGIT, tf.int64)))
        digest.update(b"".join(drawn["image_bytes"].numpy()))
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
