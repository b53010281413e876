"""The heat maps of causal traces: layers from left to right, tokens from top to bottom, one map for each kind."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from editsafety.errors import UsageError
from editsafety.research.tracing.effects import KINDS, AverageEffects, CausalTrace
from editsafety.research.tracing.facts import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHAT = {"state": "the state behind", "mlp": "MLPs of", "attention": "attentions of"}
COLOURS = {"state": "Purples", "mlp": "Greens", "attention": "Reds"}


def draw(traced: CausalTrace, kind: str) -> bytes:
    """The picture as the bytes of a file of that kind ("svg", "png"). Raises UsageError where matplotlib is missing."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"a picture needs matplotlib ({error}). Run: pip install 'editsafety[maps]'") from error
    shown = [name for name in KINDS if any(one.kind == name for one in traced.averages)]
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "editsafety", "font.size": 10}):  # the same bytes for the same trace
        figure = Figure(figsize=(7.5, 0.6 + 2.4 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, name in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
            _map(figure, axes, traced, [one for one in traced.averages if one.kind == name])
        count = len(traced.facts)
        figure.suptitle(f"{traced.model}: average indirect effect on {count} fact{'s' if count > 1 else ''}")
        figure.savefig(out, format=kind, dpi=100, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _map(figure: Figure, axes: Axes, traced: CausalTrace, rows: list[AverageEffects]) -> None:
    kind, window = rows[0].kind, min(traced.window, traced.layers)
    rows = sorted(rows, key=lambda row: CLASSES.index(row.tokens))
    most = max(max(row.mean) for row in rows)
    image = axes.imshow(
        [row.mean for row in rows],
        aspect="auto",
        cmap=COLOURS[kind],
        vmin=0,
        vmax=max(most, 1e-9),
        interpolation="none",
    )
    of = WHAT[kind]
    around = "one layer" if kind == "state" or window == 1 else f"{window} layers around one"
    axes.set(title=f"restored: {of} {around}", xlabel="layer")
    axes.set_yticks(range(len(rows)), [row.tokens for row in rows])
    figure.colorbar(image, ax=axes, label="probability regained")
