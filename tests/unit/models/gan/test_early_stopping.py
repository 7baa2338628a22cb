"""Early stopping: the best evaluation, and how long ago it was."""

from hypothesis import given
from hypothesis import strategies as st

from models.gan.early_stopping import EarlyStopping

FIDS = st.lists(st.integers(0, 6).map(float), max_size=20)


@given(FIDS, st.integers(1, 5))
def test_it_stops_when_the_best_is_as_long_ago(fids: list[float], patience: int) -> None:
    stopping, unlimited = EarlyStopping(patience), EarlyStopping(None)
    best, since = float("inf"), 0
    for fid in fids:
        is_best = stopping.add(fid)
        assert unlimited.add(fid) == is_best == (fid <= best)
        # An equal one is kept, as the later of the two, but is no improvement.
        since = 0 if fid < best else since + 1
        best = min(best, fid)
        assert stopping.should_stop == (since >= patience)
    assert stopping.fids == fids
    assert not unlimited.should_stop
    assert not EarlyStopping(patience).should_stop


@given(FIDS, FIDS, st.integers(1, 5))
def test_a_series_can_be_continued(before: list[float], after: list[float], patience: int) -> None:
    whole, first = EarlyStopping(patience), EarlyStopping(patience)
    for fid in before:
        assert whole.add(fid) == first.add(fid)
    second = EarlyStopping(patience)
    second.reset(first.fids)
    for fid in after:
        assert whole.add(fid) == second.add(fid)
        assert whole.should_stop == second.should_stop
    assert first.fids == before
