"""TensorFlow Serving's JSON: its documented examples, and whatever else may come."""

import base64
import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.codec import RequestError, TensorSpec, parse_request, render_outputs

INT, FLOAT, STRING = np.dtype(np.int64), np.dtype(np.float32), np.dtype(object)
SIGNATURES = {
    "serving_default": {"seed": TensorSpec(INT, (None,)), "digit": TensorSpec(INT, (None,))},
    "from_latent": {"latent": TensorSpec(FLOAT, (None, 3)), "digit": TensorSpec(INT, (None,))},
    "text": {"text": TensorSpec(STRING, (None,))},
    "half": {"x": TensorSpec(FLOAT, (None,))},
    "flags": {"flag": TensorSpec(np.dtype(bool), (None,))},
}
INT64 = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab") | st.text(), inner),
    max_leaves=20,
)


def parse(content, max_rows=100):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_request(body, SIGNATURES, max_rows)


@given(st.lists(st.tuples(INT64, INT64), min_size=1, max_size=20))
def test_rows_and_columns_are_the_same_request(pairs):
    by_row = parse({"instances": [{"seed": seed, "digit": digit} for seed, digit in pairs]})
    seeds, digits = map(list, zip(*pairs, strict=True))
    by_column = parse({"inputs": {"digit": digits, "seed": seeds}})
    assert by_row.by_row
    assert not by_column.by_row
    for request in (by_row, by_column):
        assert request.rows == len(pairs)
        assert request.inputs["seed"].tolist() == seeds
        assert request.inputs["digit"].tolist() == digits
        assert {array.dtype for array in request.inputs.values()} == {INT}


def test_the_documented_examples():
    """https://www.tensorflow.org/tfx/serving/api_rest: one input needs no name, base64, rows."""
    half = parse({"signature_name": "half", "instances": [1.0, 2.0, 5.0]})
    assert half.inputs["x"].tolist() == [1.0, 2.0, 5.0]
    assert parse({"signature_name": "half", "inputs": [1, 2]}).inputs["x"].dtype == FLOAT
    encoded = [{"b64": "aW1hZ2UgYnl0ZXM="}, {"b64": "YXdlc29tZSBpbWFnZSBieXRlcw=="}]
    for content in ({"instances": encoded}, {"inputs": encoded}, {"inputs": {"text": encoded}}):
        text = parse({"signature_name": "text", **content})
        assert text.inputs["text"].tolist() == [b"image bytes", b"awesome image bytes"]
    answer = {"prediction": np.float32([2.5, 3.0, 4.5])}
    assert json.loads(render_outputs(answer, by_row=True)) == {"predictions": [2.5, 3.0, 4.5]}
    assert json.loads(render_outputs(answer, by_row=False)) == {"outputs": [2.5, 3.0, 4.5]}


def test_a_signature_without_a_name_is_the_default():
    assert parse({"signature_name": "", "inputs": {"seed": [1], "digit": [1]}}).rows == 1
    for nothing in (None, 0, False, []):
        with pytest.raises(RequestError, match="must be a string"):
            parse({"signature_name": nothing, "inputs": {"seed": [1], "digit": [1]}})


def test_outputs_of_several_names():
    pictures = np.empty(2, object)
    pictures[:] = [b"\x89PNG", b"\x00"]
    outputs = {
        "image_bytes": pictures,
        "digit": np.int64([7, 3]),
        "image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        "name": pictures[1:].repeat(2),
    }
    cells = [{"b64": base64.b64encode(cell).decode()} for cell in pictures]
    rows = json.loads(render_outputs(outputs, by_row=True))["predictions"]
    assert rows[0] == {
        "image_bytes": cells[0],
        "digit": 7,
        "image": [[0, 1], [2, 3]],
        "name": "\x00",
    }
    columns = json.loads(render_outputs(outputs, by_row=False))["outputs"]
    assert columns["image_bytes"] == cells
    assert columns["image"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "JSON Parse error"),
        (b'{"inputs": {"seed": [NaN]}}', "JSON Parse error"),
        (b"[" * 5_000, "JSON Parse error"),
        ([1], "must be a JSON object"),
        ({}, "'inputs' and 'instances'"),
        ({"inputs": {}, "instances": []}, "'inputs' and 'instances'"),
        ({"signature_name": 7, "inputs": {}}, "must be a string"),
        ({"signature_name": "no", "inputs": {}}, '"no" not found'),
        ({"instances": []}, "not empty"),
        ({"instances": {}}, "not empty"),
        ({"inputs": [1]}, "inputs digit, seed"),
        ({"inputs": {"seed": [1]}}, "does not have input: digit"),
        ({"inputs": {"seed": [1], "digit": [1], "b": 1}}, "unknown: b"),
        ({"instances": [{"seed": 1, "digit": 1}, {"seed": 1}]}, "element: 1 of 'instances'"),
        ({"inputs": {"seed": [1.0], "digit": [1]}}, "float is not of type int64"),
        ({"inputs": {"seed": [True], "digit": [1]}}, "bool is not of type int64"),
        ({"inputs": {"seed": ["1"], "digit": [1]}}, "str is not of type int64"),
        ({"inputs": {"seed": [None], "digit": [1]}}, "NoneType is not of type int64"),
        ({"inputs": {"seed": [2**63], "digit": [1]}}, "out of the range of int64"),
        ({"inputs": {"seed": [2**64], "digit": [1]}}, "is not of type int64"),
        ({"inputs": {"seed": [[1]], "digit": [1]}}, "expected the shape [-1]"),
        ({"inputs": {"seed": 1, "digit": 1}}, "expected the shape [-1]"),
        ({"inputs": {"seed": [1, [2]], "digit": [1, 2]}}, "different lengths"),
        ({"inputs": {"seed": [1, 2], "digit": [1]}}, "seed 2, digit 1"),
        ({"inputs": {"seed": [1] * 101, "digit": [1] * 101}}, "at most 100"),
        (
            {"signature_name": "from_latent", "inputs": {"latent": [[1, 2]], "digit": [1]}},
            "expected the shape [-1, 3] (-1: any), got [1, 2]",
        ),
        (
            {"signature_name": "from_latent", "inputs": {"latent": [[1, 2, 1e39]], "digit": [1]}},
            "out of the range of float32",
        ),
        ({"signature_name": "text", "inputs": [{"b64": "not it"}]}, "base64"),
        ({"signature_name": "text", "inputs": [{"b64": 7}]}, "b64"),
        ({"signature_name": "flags", "inputs": [1]}, "int is not of type bool"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(content, told):
    with pytest.raises(RequestError) as caught:
        parse(content)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 500


@given(JSON, st.sampled_from([*SIGNATURES]), st.booleans())
def test_any_json_is_read_or_refused(value, signature, by_row):
    content = {"signature_name": signature, "instances" if by_row else "inputs": value}
    try:
        body = orjson.dumps(content)
    except (TypeError, orjson.JSONEncodeError):
        return  # Not JSON: integers beyond 64 bits, lone surrogates.
    try:
        request = parse(body)
    except RequestError:
        return
    assert {len(array) for array in request.inputs.values()} == {request.rows}
    for name, spec in SIGNATURES[signature].items():
        assert request.inputs[name].dtype == spec.dtype


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(RequestError):
        parse(body)


def test_no_rows():
    request = parse({"signature_name": "from_latent", "inputs": {"latent": [], "digit": []}})
    assert request.rows == 0
    assert request.inputs["latent"].shape == (0, 3)
