"""Grids of digits as PNG."""

import io

import numpy as np
from PIL import Image


def encode_grid(images: np.ndarray, columns: int, gap: int = 2) -> bytes:
    """Arranges images in a grid, row by row, and encodes it as a grayscale PNG.

    Args:
      images: uint8 [n, 28, 28, 1], n a multiple of `columns`.
      columns: images per row.
      gap: pixels between images.

    Returns:
      The PNG's bytes.

    Raises:
      ValueError: if n is not a multiple of `columns`.
    """
    count, height, width, _ = images.shape
    if count % columns:
        raise ValueError(f"{count} images do not fill rows of {columns}")
    padded = np.pad(images, ((0, 0), (0, gap), (0, gap), (0, 0)))
    rows = padded.reshape(count // columns, columns, height + gap, width + gap)
    grid = rows.transpose(0, 2, 1, 3).reshape(count // columns * (height + gap), -1)
    buffer = io.BytesIO()
    Image.fromarray(grid[:-gap, :-gap]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
