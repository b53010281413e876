"""Drawing of key maps: a marker for each kind of vector, a colour for each set."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editsafety.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from editsafety.research.key_map import Map

KINDS = {"solved": r"$C^{-1}\bar{k}$", "bare": r"$k_u$", "mean": r"$\bar{k}$"}  # as matplotlib writes them
TOKENS = {"first": "first tokens of texts", "later": "later tokens of texts"}
# Okabe and Ito's colours, told apart with any kind of colour vision; shapes say the same again.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
SHAPES = {"solved": "^", "bare": "o", "mean": "s", "first": "x", "later": "."}


def draw(drawn: Map, kind: str) -> bytes:
    """The picture of a map as the bytes of a file of that kind. Raises UsageError where matplotlib is missing."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"a map needs matplotlib ({error}). Run: pip install 'editsafety[maps]'") from error
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "editsafety", "font.size": 10}):  # the same bytes for the same map
        figure = Figure(figsize=(8.5, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _scatter(axes, drawn)
        axes.set(title=f"{drawn.title}\n(unit vectors)", xlabel=drawn.axes[0], ylabel=drawn.axes[1])
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.savefig(out, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _scatter(axes: Axes, drawn: Map) -> None:
    sets = [label for label in dict.fromkeys(p.label for p in drawn.points) if label != "texts"]
    for kind in (*reversed(TOKENS), "solved", "mean", "bare"):  # a filled k_u inside of a hollow k-bar: they agree
        for label in dict.fromkeys(p.label for p in drawn.points if p.kind == kind):
            own = [p for p in drawn.points if (p.kind, p.label) == (kind, label)]
            x, y = [p.x for p in own], [p.y for p in own]
            text = kind in TOKENS
            colour = "#888888" if text else COLOURS[sets.index(label) % len(COLOURS)]
            name = f"{TOKENS[kind] if text else f'{KINDS[kind]}, {label}'} ({len(own)})"
            style: dict[str, Any] = {"marker": SHAPES[kind], "label": name, "alpha": 0.8}
            style |= {"color": colour} if kind != "mean" else {"facecolors": "none", "edgecolors": colour}
            axes.scatter(x, y, s={"later": 12, "first": 40, "mean": 70, "solved": 30}.get(kind, 26), **style)
            if len(own) > 1 and not text and _is_one_spot(x, drawn, "x") and _is_one_spot(y, drawn, "y"):
                place = (statistics.fmean(x), statistics.fmean(y))
                axes.annotate(name, place, xytext=(-8, 12), textcoords="offset points", ha="right", color=colour)


def _is_one_spot(values: Sequence[float], drawn: Map, axis: str) -> bool:
    """Whether markers would hide each other: told by a name beside them."""
    every = [getattr(point, axis) for point in drawn.points]
    return bool(max(values) - min(values) < 0.03 * (max(every) - min(every)))
