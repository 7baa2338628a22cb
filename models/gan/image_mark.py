"""Marks in a PNG file that say what generated it: an XMP packet and text chunks, added in a graph.

The XMP packet has IPTC's `DigitalSourceType` with the value `trainedAlgorithmicMedia`
(https://cv.iptc.org/newscodes/digitalsourcetype/), which readers of image metadata know. The text
chunks name the generator, and the seed and digit that draw the image again. The
chunks follow the PNG specification, third edition, 5.3, 11.3.3.2 (`tEXt`) and 11.3.3.4 (`iTXt`).
"""

import struct
import zlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
_HEADER_BYTES = 33  # the signature and the chunk IHDR, before which nothing may stand
_SEED_BYTES, _DIGIT_BYTES = 20, 2  # of "-9223372036854775808", the longest seed, and "-1"
_BITS = np.array([128, 64, 32, 16, 8, 4, 2, 1], np.uint8)
_BYTES = [bytes([value]) for value in range(256)]


class ImageMark:
    """Adds the marks of one generator to PNG files, within a TensorFlow graph.

    TensorFlow has no operation for the CRC-32 at the end of a chunk. For texts of one length it is
    a linear map of their bits over the integers modulo 2, plus a constant; so it is a product with
    a matrix, and seeds and digits are padded with zeros to one length.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Prepares what is equal in each image.

        Args:
          texts: by keyword, in Latin-1; keywords have 1 to 79 characters.
        """
        chunks = [_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP.encode())]
        chunks += [_chunk(b"tEXt", _text(name, text)) for name, text in texts.items()]
        self._constant = b"".join(chunks)
        # For both chunks at once: a row per bit of the texts, a column per bit of the CRCs.
        weights = np.zeros([8 * (_SEED_BYTES + _DIGIT_BYTES), 2 * 32], np.float32)
        weights[: 8 * _SEED_BYTES, :32], seed_constant = _crc_map("seed", _SEED_BYTES)
        weights[8 * _SEED_BYTES :, 32:], digit_constant = _crc_map("digit", _DIGIT_BYTES)
        self._weights, self._offset = weights, np.concatenate([seed_constant, digit_constant])

    def add(self, png: tf.Tensor, seed: tf.Tensor, digit: tf.Tensor) -> tf.Tensor:
        """Marks images.

        Args:
          png: string [N], each a PNG file.
          seed: int64 [N], any value.
          digit: int64 [N], -1..9.

        Returns:
          string [N], PNG files with the same pixels.
        """
        seed_text = tf.strings.as_string(seed, width=_SEED_BYTES, fill="0")
        digit_text = tf.strings.as_string(digit, width=_DIGIT_BYTES, fill="0")
        crcs = self._crcs(tf.strings.join([seed_text, digit_text]))
        header = tf.fill(tf.shape(png), _HEADER_BYTES)
        parts = [
            tf.strings.substr(png, 0, _HEADER_BYTES),
            self._constant + _head("seed", _SEED_BYTES),
            seed_text,
            crcs[:, 0],
            _head("digit", _DIGIT_BYTES),
            digit_text,
            crcs[:, 1],
            tf.strings.substr(png, header, tf.strings.length(png) - header),
        ]
        return tf.strings.join(parts)

    def _crcs(self, text: tf.Tensor) -> tf.Tensor:
        """The CRC-32 of the seed's and the digit's chunk, big-endian: string [N, 2] for [N]."""
        values = tf.io.decode_raw(text, tf.uint8, fixed_length=_SEED_BYTES + _DIGIT_BYTES)
        bits = tf.bitwise.bitwise_and(values[..., tf.newaxis], _BITS) > 0
        bits = tf.reshape(tf.cast(bits, tf.float32), [-1, len(self._weights)])
        sums = tf.math.floormod(tf.matmul(bits, self._weights) + self._offset, 2.0)
        numbers = tf.linalg.matvec(tf.reshape(sums, [-1, 2, 4, 8]), tf.cast(_BITS, tf.float32))
        return tf.strings.reduce_join(tf.gather(_BYTES, tf.cast(numbers, tf.int32)), axis=-1)


def _crc_map(keyword: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """How the CRC of a `tEXt` chunk depends on the bits of a text of `length` bytes.

    Returns:
      Weights, 0 or 1, float32 [8 * length, 32], and the CRC for zero bytes, float32 [32].
    """
    constant = zlib.crc32(b"tEXt" + _text(keyword, bytes(length).decode()))
    terms = []
    for bit in range(8 * length):
        content = bytearray(length)
        content[bit // 8] = _BITS[bit % 8]
        crc = zlib.crc32(b"tEXt" + _text(keyword, content.decode("latin-1")))
        terms.append(_unpack(crc ^ constant))
    return np.array(terms), _unpack(constant)


def _unpack(crc: int) -> np.ndarray:
    return np.unpackbits(np.array([crc], ">u4").view(np.uint8)).astype(np.float32)


def _head(keyword: str, length: int) -> bytes:
    """A `tEXt` chunk up to its text."""
    start = _text(keyword, "")
    return struct.pack(">I", len(start) + length) + b"tEXt" + start


def _text(keyword: str, text: str) -> bytes:
    return f"{keyword}\0{text}".encode("latin-1")


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
