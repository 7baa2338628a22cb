"""What a served version is verified with."""

import numpy as np
import pytest

from evaluation.sampling import ANY_DIGIT
from evaluation.verification import CLASSIFIER, VerificationSet
from metrics.frechet import fit_gaussian

FEATURES = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)
LOGITS = np.eye(10, dtype=np.float32)[np.arange(50) % 10]


def test_a_set_is_read_as_it_was_written(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "variables" / "index").write_bytes(b"weights")
    digits = np.arange(50) % 10
    written = VerificationSet(digits, fit_gaussian(FEATURES[0]))
    folder = tmp_path / "verification"
    written.write(str(folder), str(tmp_path / "model"))
    assert (folder / CLASSIFIER / "variables" / "index").read_bytes() == b"weights"
    read = VerificationSet.read(str(folder))
    np.testing.assert_array_equal(read.digits, digits)
    assert read.measure(FEATURES[1], LOGITS) == written.measure(FEATURES[1], LOGITS)


def test_metrics_are_those_of_the_digits():
    gaussian = fit_gaussian(FEATURES[0])
    digits = np.where(np.arange(50) < 5, 9, np.arange(50) % 10)
    assert VerificationSet(digits, gaussian).measure(FEATURES[0], LOGITS) == {
        "fid": pytest.approx(0.0, abs=1e-5),
        "conditional_accuracy": 0.9,
    }
    unconditional = VerificationSet(np.full(50, ANY_DIGIT), gaussian)
    assert set(unconditional.measure(FEATURES[1], LOGITS)) == {"fid"}
