"""Numbers of the report, in words."""

import pytest

from components.generator_evaluator.report.render import interval, number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.15321, "0.1532"),
        (1234.5, "1234"),
        (6.2951e-05, "6.3×10⁻⁵"),
        (-2e-07, "-2×10⁻⁷"),
        (1.5e12, "1.5×10¹²"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_intervals():
    assert interval((0.12345, 0.2)) == "0.123 to 0.2"
    assert interval(None) == ""
