import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kubeflow.client.cron import CronError, to_kubeflow


@pytest.mark.parametrize(
    ("given_expression", "expected"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        ("  */15   *  * * * ", "0 */15 * * * *"),
        ("30 0 3 ? * MON-FRI", "30 0 3 ? * MON-FRI"),
        ("0 0 1,15 jan-mar,dec *", "0 0 0 1,15 jan-mar,dec *"),
        ("5/10 * * * *", "0 5/10 * * * *"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
        ("0 0 30 2,4 *", "0 0 0 30 2,4 *"),
        ("0 0 31 2 1", "0 0 0 31 2 1"),  # either day is enough: the Mondays of February
        ("0 0 31-31/2 1-12/2 ?", "0 0 0 31-31/2 1-12/2 ?"),
        ("@daily", "@daily"),
        ("@every 1h30m", "@every 1h30m"),
    ],
)
def test_what_kubeflow_takes(given_expression: str, expected: str) -> None:
    assert to_kubeflow(given_expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "has 0 fields; expected 5 .* or 6"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "cron field minute is '60': expected 0 to 59, got 60"),
        ("0 24 * * *", "cron field hour is '24': expected 0 to 23, got 24"),
        ("0 0 0 * *", "cron field day of month is '0': expected 1 to 31, got 0"),
        ("0 0 * 13 *", "cron field month is '13': expected 1 to 12 or jan to dec, got 13"),
        ("0 0 * * 7", "expected 0 to 6 or sun to sat, Sunday is 0, got 7"),
        ("0 0 * * FUNDAY", "'FUNDAY' is not a number"),
        ("0 0 * * 5-1", "5 comes after 1"),
        ("*/0 * * * *", "a step is at least 1"),
        ("*/x * * * *", r"'x' is not a number \(a step\)"),
        ("1,, * * * *", "'' is not a number"),
        ("-5 * * * *", "'' is not a number"),
        ("1-2-3 * * * *", "'2-3' is not a number"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 30 2 */1", "never fires"),
        ("0 0 29 2 */2", "never fires"),  # no such day within the five years that are searched
        ("@reboot", "is no cron expression"),
        ("@every 0s", "is no cron expression"),
        ("@every day", "is no cron expression"),
        ("TZ=UTC 0 0 * * *", "cron field second is 'TZ=UTC'"),
    ],
)
def test_what_kubeflow_does_not_take(expression: str, message: str) -> None:
    with pytest.raises(CronError, match=message):
        to_kubeflow(expression)


_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@st.composite
def _fields(draw: st.DrawFn) -> list[str]:
    fields = []
    for low, high in _BOUNDS:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 90))
        fields.append(
            draw(st.sampled_from(["*", "?", f"{first}-{last}", f"{first}-{last}/{step}"]))
        )
    fields[2] = "*"  # which days exist is another test's
    return fields


@given(_fields())
def test_five_fields_within_their_bounds_are_taken_with_second_0(fields: list[str]) -> None:
    assert to_kubeflow(" ".join(fields)) == " ".join(["0", *fields])


@given(_fields(), st.integers(0, 4), st.integers(1, 10**6), st.booleans())
def test_a_number_out_of_bounds_is_refused(
    fields: list[str], place: int, by: int, above: bool
) -> None:
    low, high = _BOUNDS[place]
    fields[place] = str(high + by) if above else str(low - by)
    with pytest.raises(CronError):
        to_kubeflow(" ".join(fields))
