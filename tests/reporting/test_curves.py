"""Curves: every editor has its line, a break its cross, no number the ceiling; and what cannot be drawn says so."""

import math
import sys

import pytest

from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.reporting import curves
from editsafety.runs.case_record import Breaking
from tests.builders import course, probe, step

pytest.importorskip("matplotlib", reason="curves need the extra maps")
REQUEST = EditRequest(id="r17", prompt="{} works as a", subject="Ashurn", target_new="baker")
BROKEN = course(
    step(10, ratio=1.1), step(20, ratio=math.inf), ended="collapsed",
    breaking=Breaking(17, (REQUEST,), ratio=300.0, ratio_before=1.2, alone=1.0),
)  # fmt: skip
UNEDITED = (probe("reasoning", 90), probe("nli", 100))
STANDS = course(step(10), step(20, reasoning=80), abilities=UNEDITED, editor="memit")


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn, as (axes title, x, y) of every line with data."""
    from matplotlib.figure import Figure

    seen = []

    def note(figure, *_args, **_more):
        for axes in figure.axes:
            lines = [(list(one.get_xdata()), list(one.get_ydata())) for one in axes.get_lines()]
            seen.extend((axes.get_title(), x, y) for x, y in lines if len(x))

    monkeypatch.setattr(Figure, "savefig", note)
    return seen


def test_a_line_starts_at_one_times_and_goes_through_what_bisection_found(drawn, tmp_path):
    curves.draw([BROKEN, STANDS], tmp_path / "curves.svg")
    title, x, y = drawn[0]
    assert title == "pocket-neo: sequential, hard requests"
    assert x == [0, 10, 16, 17, 20]
    assert y == pytest.approx([1.0, 1.1, 1.2, 300.0, curves.CEILING])
    assert ([17], [300.0]) in [(x, y) for _, x, y in drawn]  # the cross


@pytest.mark.parametrize(
    ("worst", "told"), [(1.3, {"1x", "2x"}), (7.2, {"1x", "2x", "3x", "5x"}), (6e3, {"1x", "10x", "100x", "1000x"})]
)
def test_an_axis_has_labels_as_times_also_where_nothing_collapses(worst, told, tmp_path, monkeypatch):
    """Of 1x to 7x the labels were 1x, 2 x 10^0, 3 x 10^0 and so on."""
    from matplotlib.figure import Figure

    texts = []

    def note(figure, *_args, **_more):
        figure.canvas.draw()
        (axes,) = figure.axes
        low, high = axes.get_ylim()
        for ticks in (axes.yaxis.get_major_ticks(), axes.yaxis.get_minor_ticks()):
            texts.extend(one.label1.get_text() for one in ticks if low <= one.get_loc() <= high)

    monkeypatch.setattr(Figure, "savefig", note)
    curves.draw([course(step(10, ratio=1.0), step(20, ratio=worst))], tmp_path / "curves.png")
    assert set(texts) - {""} == told


def test_any_figure_of_the_steps_can_be_drawn(drawn, tmp_path):
    curves.draw([BROKEN, STANDS], tmp_path / "curves.svg", figure="reasoning")
    assert [(x, y) for _, x, y in drawn] == [([20], [0.8])]


def test_panels_have_one_order_whatever_that_of_the_records(drawn, tmp_path):
    batch = course(step(10), kind="batch")
    curves.draw([batch, STANDS], tmp_path / "curves.svg")
    titles = list(dict.fromkeys(title for title, _, _ in drawn))
    assert titles == ["pocket-neo: sequential, hard requests", "pocket-neo: batch, hard requests"]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_equal_records_give_equal_files(tmp_path, kind):
    one, two = (curves.draw([BROKEN, STANDS], tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
    assert one == two
    assert len(one) > 1000


def test_what_was_not_measured_is_refused_with_what_was(tmp_path):
    with pytest.raises(UsageError, match=r"no course of this run measured 'nli'. Measured: ratio, drift_growth, kept"):
        curves.draw([BROKEN], tmp_path / "x.svg", figure="nli")
    with pytest.raises(UsageError, match="no course"):
        curves.draw([], tmp_path / "x.svg")


def test_without_matplotlib_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'editsafety\[maps\]'"):
        curves.draw([BROKEN], tmp_path / "x.svg")
