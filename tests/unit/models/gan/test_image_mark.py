"""Marks in PNG files: read by Pillow and by hand, chunk by chunk."""

import io
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.gan.image_mark import SOURCE_TYPE, ImageMark

TEXTS = {"Software": "a generator", "recipe": "0123"}
INT64 = st.integers(-(2**63), 2**63 - 1)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 28, 28, 1], tf.uint8),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None], tf.int64),
    ]
)
def encode(image: tf.Tensor, seed: tf.Tensor, digit: tf.Tensor) -> tf.Tensor:
    png = tf.map_fn(tf.io.encode_png, image, fn_output_signature=tf.string)
    return ImageMark(TEXTS).add(png, seed, digit)


def noise(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, [rows, 28, 28, 1]).astype(np.uint8)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, start = [], 8
    while start < len(png):
        length, kind = struct.unpack(">I4s", png[start : start + 8])
        content = png[start + 8 : start + 8 + length]
        assert png[start + 8 + length :][:4] == struct.pack(">I", zlib.crc32(kind + content))
        found.append((kind, content))
        start += 12 + length
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(INT64, st.integers(-1, 9)), max_size=5))
def test_any_seed_and_digit_in_valid_chunks(rows: list[tuple[int, int]]) -> None:
    seeds, digits = np.array(rows, np.int64).reshape(-1, 2).T
    images = noise(len(rows))
    files = encode(images, seeds, digits).numpy()
    assert len(files) == len(rows)
    for png, image, (seed, digit) in zip(files, images, rows, strict=True):
        kinds = [kind for kind, _ in chunks(png)]
        assert kinds[:6] == [b"IHDR", b"iTXt", *[b"tEXt"] * 4]
        assert (set(kinds[6:-1]), kinds[-1]) == ({b"IDAT"}, b"IEND")
        with Image.open(io.BytesIO(png)) as opened:
            np.testing.assert_array_equal(np.asarray(opened), image[..., 0])
            read = dict(opened.info)
        assert {name: read[name] for name in TEXTS} == TEXTS
        assert (int(read["seed"]), int(read["digit"])) == (seed, digit)


def test_the_xmp_packet_has_iptcs_source_type() -> None:
    [png] = encode(noise(1), [1], [7]).numpy()
    [content] = [content for kind, content in chunks(png) if kind == b"iTXt"]
    # Keyword, not compressed, no language, no translated keyword.
    head = b"XML:com.adobe.xmp\0\0\0\0\0"
    assert content.startswith(head)
    root = ElementTree.fromstring(content.removeprefix(head))
    [described] = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert described.attrib[name] == SOURCE_TYPE


def test_two_calls_give_the_same_bytes() -> None:
    images = noise(3)
    first, second = (encode(images, [1, 2, 3], [7, 8, 9]).numpy() for _ in range(2))
    assert first.tolist() == second.tolist()
