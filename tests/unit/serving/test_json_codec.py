"""TensorFlow Serving's JSON: its documented examples, and whatever else may come."""

import base64
import json
import tracemalloc

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.json_codec import encode_slice, join_slices, parse_request
from serving.requests import RequestError, TensorSpec
from serving.settings import MAX_BODY_BYTES

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


def render(outputs, *, by_row):
    """The whole answer as one slice."""
    return join_slices([encode_slice(outputs, by_row=by_row)], by_row=by_row)


@settings(deadline=None)
@given(st.lists(st.tuples(INT64, INT64), min_size=1, max_size=20))
def test_rows_and_columns_are_the_same_request(pairs):
    by_row = parse({"instances": [{"seed": seed, "digit": digit} for seed, digit in pairs]})
    seeds, digits = map(list, zip(*pairs, strict=True))
    by_column = parse({"inputs": {"digit": digits, "seed": seeds}})
    assert by_row.by_row
    assert not by_column.by_row
    for request in (by_row.request, by_column.request):
        assert request.rows == len(pairs)
        assert request.inputs["seed"].tolist() == seeds
        assert request.inputs["digit"].tolist() == digits
        assert {array.dtype for array in request.inputs.values()} == {INT}


def test_the_documented_examples():
    """https://www.tensorflow.org/tfx/serving/api_rest: one input needs no name, base64, rows."""
    half = parse({"signature_name": "half", "instances": [1.0, 2.0, 5.0]})
    assert half.request.inputs["x"].tolist() == [1.0, 2.0, 5.0]
    assert parse({"signature_name": "half", "inputs": [1, 2]}).request.inputs["x"].dtype == FLOAT
    encoded = [{"b64": "aW1hZ2UgYnl0ZXM="}, {"b64": "YXdlc29tZSBpbWFnZSBieXRlcw=="}]
    for content in ({"instances": encoded}, {"inputs": encoded}, {"inputs": {"text": encoded}}):
        text = parse({"signature_name": "text", **content})
        assert text.request.inputs["text"].tolist() == [b"image bytes", b"awesome image bytes"]
    answer = {"prediction": np.float32([2.5, 3.0, 4.5])}
    assert json.loads(render(answer, by_row=True)) == {"predictions": [2.5, 3.0, 4.5]}
    assert json.loads(render(answer, by_row=False)) == {"outputs": [2.5, 3.0, 4.5]}


def test_a_signature_without_a_name_is_the_default():
    assert parse({"signature_name": "", "inputs": {"seed": [1], "digit": [1]}}).request.rows == 1
    for nothing in (None, 0, False, []):
        with pytest.raises(RequestError, match="must be a string"):
            parse({"signature_name": nothing, "inputs": {"seed": [1], "digit": [1]}})


def test_outputs_of_several_names():
    images = np.empty(2, object)
    images[:] = [b"\x89PNG", b"\x00"]
    outputs = {
        "image_bytes": images,
        "digit": np.int64([7, 3]),
        "image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        "name": images[1:].repeat(2),
    }
    cells = [{"b64": base64.b64encode(cell).decode()} for cell in images]
    rows = json.loads(render(outputs, by_row=True))["predictions"]
    assert rows[0] == {
        "image_bytes": cells[0],
        "digit": 7,
        "image": [[0, 1], [2, 3]],
        "name": "\x00",
    }
    columns = json.loads(render(outputs, by_row=False))["outputs"]
    assert columns["image_bytes"] == cells
    assert columns["image"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSON Parse error"),
        (b'{"inputs": {"seed": [NaN]}}', "JSON Parse error"),
        (b"[" * 500, "JSON Parse error"),
        (b"[" * 5_000, "more values than 100 rows"),
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
        (b'{"inputs": {"seed": ' + b"[" * 300 + b"]" * 300 + b"}}", "digit"),
        (
            b'{"inputs": {"digit": [1], "seed": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}}",
            "expected the shape [-1]",
        ),
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
def test_a_request_that_cannot_be_answered_says_why(content, message):
    with pytest.raises(RequestError) as caught:
        parse(content)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@settings(deadline=None)
@given(JSON, st.sampled_from([*SIGNATURES]), st.booleans())
def test_any_json_is_read_or_refused(value, signature, by_row):
    content = {"signature_name": signature, "instances" if by_row else "inputs": value}
    try:
        body = orjson.dumps(content)
    except (TypeError, orjson.JSONEncodeError):
        return  # Not JSON: integers beyond 64 bits, lone surrogates.
    try:
        request = parse(body).request
    except RequestError:
        return
    assert {len(array) for array in request.inputs.values()} == {request.rows}
    for name, spec in SIGNATURES[signature].items():
        assert request.inputs[name].dtype == spec.dtype


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(RequestError):
        parse(body)


def test_no_rows():
    content = {"signature_name": "from_latent", "inputs": {"latent": [], "digit": []}}
    request = parse(content).request
    assert request.rows == 0
    assert request.inputs["latent"].shape == (0, 3)


# Answers.

OUTPUTS = st.sampled_from(["image_bytes", "digit", "image", "text", "flag"])


@st.composite
def outputs_of_a_signature(draw):
    rows, seed = draw(st.integers(0, 12)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    pngs, texts = np.empty(rows, object), np.empty(rows, object)
    pngs[:] = [random.bytes(draw(st.integers(0, 9))) for _ in range(rows)]
    texts[:] = [draw(st.text(max_size=4)).encode() for _ in range(rows)]
    made = {
        "image_bytes": pngs,
        "digit": random.integers(-(2**63), 2**63 - 1, rows),
        "image": random.standard_normal((rows, 2, 3, 1)).astype(np.float32),
        "text": texts,
        "flag": random.random(rows) < 0.5,
    }
    return {name: made[name] for name in draw(st.lists(OUTPUTS, min_size=1, unique=True))}


def plain(name, array):
    """The JSON value of an output, by the words of TensorFlow Serving's documentation."""
    if name == "image_bytes":
        return [{"b64": base64.b64encode(cell).decode()} for cell in array]
    return [cell.decode() for cell in array] if name == "text" else array.tolist()


@settings(deadline=None)
@given(outputs=outputs_of_a_signature(), data=st.data())
def test_slices_join_to_the_json_of_the_arrays(outputs, data):
    rows = len(next(iter(outputs.values())))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    slices = [
        {name: array[start:stop] for name, array in outputs.items()}
        for start, stop in zip([0, *cuts], [*cuts, rows], strict=True)
    ]
    columns = {name: plain(name, array) for name, array in outputs.items()}
    [only, *others] = columns.values()
    by_row = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    expected = {True: by_row if others else only, False: columns if others else only}
    for is_by_row, key in ((True, "predictions"), (False, "outputs")):
        body = join_slices(
            [encode_slice(each, by_row=is_by_row) for each in slices], by_row=is_by_row
        )
        assert body == join_slices([encode_slice(outputs, by_row=is_by_row)], by_row=is_by_row)
        assert rounded(json.loads(body)) == rounded({key: expected[is_by_row]})


def rounded(value):
    """Floats as float32, in which `0.1` is written as `0.1` and not as its nearest float64."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(np.float32(value)) if isinstance(value, float) else value


# Costs.

SERVED = {
    "serving_default": {"seed": TensorSpec(INT, (None,)), "digit": TensorSpec(INT, (None,))},
    "from_latent": {"latent": TensorSpec(FLOAT, (None, 64)), "digit": TensorSpec(INT, (None,))},
}
DEEP = b"[" * (MAX_BODY_BYTES // 2) + b"]" * (MAX_BODY_BYTES // 2)
WIDE = b"[" + b"1," * (MAX_BODY_BYTES // 2 - 1) + b"1]"
EMPTY_LISTS = b"[" + b"[]," * (MAX_BODY_BYTES // 3 - 1) + b"[]]"
RAGGED = b"[[1," + b"[[1],2]," * (MAX_BODY_BYTES // 8) + b"1]]"
OBJECTS = b"[" + b'{"":0},' * (MAX_BODY_BYTES // 7) + b"0]"


@pytest.mark.parametrize("costly", [DEEP, WIDE, EMPTY_LISTS, RAGGED, OBJECTS])
@pytest.mark.parametrize(
    "form", [b'{"instances":%b}', b'{"inputs":{"digit":[1],"seed":%b}}', b"%b"]
)
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(form, costly):
    body = form % costly
    tracemalloc.start()
    try:
        with pytest.raises(RequestError):
            parse_request(body, SERVED, 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_BODY_BYTES / 4


def test_a_long_string_costs_no_more_than_itself():
    body = b'{"inputs":{"digit":[1],"seed":"' + b"x" * MAX_BODY_BYTES + b'"}}'
    with pytest.raises(RequestError) as caught:
        parse_request(body, SERVED, 1024)
    assert len(str(caught.value)) < 500


@settings(deadline=None)
@given(
    shapes=st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.integers(1, 4), max_size=3), min_size=1
    ),
    rows=st.integers(1, 40),
    is_text=st.booleans(),
    space=st.sampled_from([None, 0, 3, "\t"]),
)
def test_the_largest_request_that_is_allowed_passes(shapes, rows, is_text, space):
    """In either form, with and without whitespace."""
    dtype, cell = (STRING, {"b64": "eA=="}) if is_text else (INT, -7)
    specs = {name: TensorSpec(dtype, (None, *sizes)) for name, sizes in shapes.items()}
    row = {name: filled(sizes, cell) for name, sizes in shapes.items()}
    columns = {name: [value] * rows for name, value in row.items()}
    for content in ({"instances": [row] * rows}, {"inputs": columns}):
        body = json.dumps({"signature_name": "all", **content}, indent=space).encode()
        request = parse_request(body, {"all": specs}, rows).request
        assert request.rows == rows
        for name, array in request.inputs.items():
            assert array.shape == (rows, *specs[name].shape[1:])
        with pytest.raises(RequestError):
            parse_request(body, {"all": specs}, rows - 1)


def filled(sizes, cell):
    """Nested lists of that shape."""
    for size in reversed(sizes):
        cell = [cell] * size
    return cell
