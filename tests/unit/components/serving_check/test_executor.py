"""ServingCheck runs the probe in a process of its own, and keeps it within limits."""

import pytest
from old_export import export_as_before

from components.serving_check.executor import NotServableError, probe
from models.gan.networks import build_generator


def test_an_exported_generator_passes(exported):
    measured = probe(str(exported), 4)
    assert set(measured) == {"load_seconds", "latency_ms", "peak_gib"}
    assert 0.1 < measured["peak_gib"] < 4


def test_what_breaks_the_contract_is_named_in_a_few_lines(tmp_path, settings):
    export_as_before(build_generator(settings), settings, tmp_path / "model")
    with pytest.raises(NotServableError) as refusal:
        probe(str(tmp_path / "model"), 4)
    assert refusal.value.where == str(tmp_path / "model")
    assert "serving_default" in refusal.value.what


def test_a_truncated_model_is_refused(exported):
    [data] = (exported / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(NotServableError) as refusal:
        probe(str(exported), 4)
    assert refusal.value.where == str(exported)


@pytest.mark.parametrize(
    ("memory_gib", "seconds", "named"), [(0.05, 60, "serving_check.memory_gib"), (4, 0.1, "0.1 s")]
)
def test_a_model_that_takes_too_much_memory_or_time_is_killed(exported, memory_gib, seconds, named):
    with pytest.raises(NotServableError) as refusal:
        probe(str(exported), memory_gib, timeout_seconds=seconds)
    assert named in str(refusal.value)
