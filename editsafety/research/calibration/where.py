"""Where to edit: the layers that are tried, around those whose MLPs carry facts by causal tracing."""

from __future__ import annotations

from editsafety.research.tracing.effects import AverageEffects

Layers = tuple[int, ...]
STRIDE = 15  # one in so many layers, up and down from the one with the largest effect


def choices_like(start: Layers | int, effects: AverageEffects) -> tuple[Layers | int, ...]:
    """As `layer_choices`, for layers that are named as `start` is: several, or a single one as a number."""
    if isinstance(start, int):
        return tuple(one for (one,) in layer_choices((start,), effects))
    return layer_choices(start, effects)


def layer_choices(start: Layers, effects: AverageEffects) -> tuple[Layers, ...]:
    """What is tried: `start`, then as many layers that end where the MLPs' effect is largest, a bit below and above.

    ROME edits the middle of the layers whose MLPs have an effect at the subject's last token (section 2), MEMIT the
    layers up to it (section 4.3).
    """
    count, layers = len(start), len(effects.mean)
    step = max(1, round(layers / STRIDE))
    ends = [effects.peak, effects.peak - step, effects.peak + step]
    possible = [min(max(end, count - 1), layers - 1) for end in ends]
    return tuple(dict.fromkeys([start, *(tuple(range(end - count + 1, end + 1)) for end in possible)]))
