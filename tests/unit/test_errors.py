import pickle

import pytest

from errors import UserError, mask_secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql://u:S3/CRET@h/db", "mysql://***@h/db"),
        ("mysql://u:p@S3@h/db", "mysql://***@h/db"),
        ("mysql://u:a://S3@h/db", "mysql://***@h/db"),
        ("'http://u:S3 S3@h'", "'http://***@h'"),
        ("https://u:S3@a: 404; https://u:S3@b", "https://***@a: 404; https://***@b"),
        ("postgresql://u@h/db?password=S3", "postgresql://***@h/db?password=***"),
        ("https://h/x?S3&token=S3#S3", "https://h/x?***&token=***&***"),
        ("gs://bucket/a, s3://b/c; d@e", "gs://bucket/a, s3://***@e"),
        ("a@b?c=d", "a@b?c=d"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
    error = UserError(text, text, text, [text])
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (each.what, each.where, each.fix, each.findings) == (*[masked] * 3, (masked,))
