"""The picture of the example with a database says what the example printed."""

from __future__ import annotations

from tests.benchmarks.stored_rows import Count, curves, totals

PRINTED = """\
  1 s  with the gate:     0 of     0 missed   without it:   498 of   498 missed
  2 s  with the gate:     0 of   497 missed   without it:   996 of   999 missed

1001 events were produced.
with the gate: 1001 looked up, 0 not there yet
   without it: 1001 looked up, 998 not there yet
"""


def test_each_line_and_the_summary_are_read() -> None:
    """As ``stored_first.py`` prints them."""
    assert curves(PRINTED) == {
        "with the gate": [(0, Count(0, 0)), (1, Count(0, 0)), (2, Count(497, 0))],
        "without it": [(0, Count(0, 0)), (1, Count(498, 498)), (2, Count(999, 996))],
    }
    assert totals(PRINTED) == {"with the gate": Count(1001, 0), "without it": Count(1001, 998)}


def test_the_picture_has_what_was_found_and_what_was_missed() -> None:
    """One panel for each follower, with its counts."""
    from tests.benchmarks.stored_rows_picture import picture  # here, since each worker would import matplotlib

    figure = picture(PRINTED)
    assert [axis.get_title() for axis in figure.axes] == [
        "with the gate: 0 of 1,001 rows not there yet",
        "without it: 998 of 1,001 rows not there yet",
    ]
    assert [[area.get_label() for area in axis.collections] for axis in figure.axes] == [["found", "not there yet"]] * 2
    tops = [[area.get_datalim(axis.transData).ymax for area in axis.collections] for axis in figure.axes]
    assert tops == [[497, 497], [3, 999]]
