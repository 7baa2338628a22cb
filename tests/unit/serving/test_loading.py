"""What is served, and what is refused before anybody asks for it."""

import pytest
import tensorflow as tf

from serving.loading import LoadedVersion


def test_a_signature_whose_tensors_are_not_rows_is_refused_at_once(tmp_path):
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"twice": 2 * x}, input_signature=[tf.TensorSpec([], tf.float32, "x")]
    )
    folder = str(tmp_path / "1")
    tf.saved_model.save(module, folder, signatures=module.double)
    with pytest.raises(ValueError, match="serving_default: x has the shape"):
        LoadedVersion(tmp_path / "1")


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(OSError, match="does not exist"):
        LoadedVersion(tmp_path / "1")
