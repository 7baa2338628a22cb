import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.cron import CronError, next_time, to_kubeflow


def due(cron: str, after: str, zone: str = "UTC", count: int = 3) -> list[str]:
    found, moment = [], datetime.datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    for _ in range(count):
        moment = next_time(cron, moment).astimezone(ZoneInfo(zone))
        found.append(moment.strftime("%a %m-%d %H:%M%z").removesuffix("+0000"))
    return found


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", ["Tue 11-24 03:00", "Wed 11-25 03:00", "Thu 11-26 03:00"]),
        ("0 6 * * 7", ["Sun 11-29 06:00", "Sun 12-06 06:00", "Sun 12-13 06:00"]),
        ("0 6 * * sun-mon", ["Sun 11-29 06:00", "Mon 11-30 06:00", "Sun 12-06 06:00"]),
        ("0 6 * * */3", ["Wed 11-25 06:00", "Sat 11-28 06:00", "Sun 11-29 06:00"]),
        # If both kinds of day are restricted, either is enough; `*/2` does not restrict.
        ("0 6 1 * 1", ["Mon 11-30 06:00", "Tue 12-01 06:00", "Mon 12-07 06:00"]),
        ("0 6 */2 * 1", ["Mon 12-07 06:00", "Mon 12-21 06:00", "Mon 01-11 06:00"]),
        ("*/20 9 * * *", ["Mon 11-23 09:40", "Tue 11-24 09:00", "Tue 11-24 09:20"]),
    ],
)
def test_next_times(cron: str, expected: list[str]) -> None:
    assert due(cron, "2026-11-23T09:20:00") == expected


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2027-03-27T12:00", ["Sun 03-28 03:00+0200", "Mon 03-29 02:30+0200"]),
        ("30 2 * * *", "2026-10-25T00:00", ["Sun 10-25 02:30+0200", "Mon 10-26 02:30+0100"]),
        ("30 * * * *", "2026-10-25T02:00", ["Sun 10-25 02:30+0200", "Sun 10-25 02:30+0100"]),
    ],
)
def test_a_change_of_clocks_neither_loses_nor_repeats_a_time(
    cron: str, after: str, expected: list[str]
) -> None:
    assert due(cron, after, "Europe/Berlin", 2) == expected


def test_a_start_within_the_repeated_hour_does_not_go_back() -> None:
    moment = datetime.datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert next_time("30 2 * * *", moment).day == 26


@pytest.mark.parametrize(
    "expression",
    ["", "0 3 * *", "0 0 3 * * *", "every night", "61 * * * *", "0 3 * * 8", "0 3 * * 5-3",
     "0 3 * * 1,", "*/0 * * * *", "0 3 30 2 *", "@daily", "0 3 29 2 1#1,"],
)  # fmt: skip
def test_malformed_expressions_are_refused(expression: str) -> None:
    moment = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc)
    with pytest.raises(CronError):
        next_time(expression, moment)
    with pytest.raises(CronError):
        to_kubeflow(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        ("  */15   *  * * * ", "0 */15 * * * *"),
        ("30 0 * * MON-FRI", "0 30 0 * * 1,2,3,4,5"),
        ("0 6 * * 5-7", "0 0 6 * * 0,5,6"),
        ("0 0 1,15 jan-mar,dec *", "0 0 0 1,15 1,2,3,12 *"),
        ("5/20 * */2 * 7", "0 5,25,45 * */2 * 0"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
    ],
)
def test_kubeflow_gets_six_fields(expression: str, expected: str) -> None:
    assert to_kubeflow(expression) == expected


@pytest.mark.parametrize("expression", ["0 0 L * *", "0 0 LW * *", "0 0 * * 1#2", "0 0 * * 5L"])
def test_kubeflow_does_not_get_what_its_parser_lacks(expression: str) -> None:
    with pytest.raises(CronError):
        to_kubeflow(expression)


_BOUNDS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))


@st.composite
def _fields(draw: st.DrawFn) -> str:
    fields = []
    for low, high in _BOUNDS:
        first = draw(st.integers(low, high))
        last, step = draw(st.integers(first, high)), draw(st.integers(1, 9))
        forms = ["*", f"*/{step}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}"]
        fields.append(draw(st.sampled_from(forms)))
    return " ".join(fields)


@given(_fields())
@hypothesis_settings(deadline=None)
def test_both_forms_name_the_same_times(expression: str) -> None:
    moment = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc)
    try:
        found = to_kubeflow(expression)
    except CronError:
        return  # no date of the next years matches
    assert found.startswith("0 ")
    assert next_time(found[2:], moment) == next_time(expression, moment)
