"""Who answers for an error while a model is measured: the measure whose code runs, or what an edit runs in the model.

A measure asks the model, and the model may have sidecars: code of an editor, far below that of the measure. Whose an
error is, is told from the calls that it came through, also where the measure caught it and raised another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TypeVar

import torch

from editsafety.edits.edit import Sidecar
from editsafety.errors import (
    ClusterError,
    EditorTimeoutError,
    EditSafetyError,
    MeasureError,
    NotPreparedError,
    SpoiltProcessError,
    StoreError,
    UndoError,
    sentence_of,
)
from editsafety.foreign import contained
from editsafety.model.handle import ModelHandle
from editsafety.model.lost_device import lost_device

T = TypeVar("T")

# What is of the machine, the process or the session, whoever was at it.
NOBODYS = (torch.OutOfMemoryError, MemoryError)
OF_THE_RUN = (ClusterError, EditorTimeoutError, NotPreparedError, SpoiltProcessError, StoreError, UndoError)


def answerable(whose: str, handle: ModelHandle, ask: Callable[[], T], sidecars: Sequence[Sidecar] = ()) -> T:
    """What `ask` returns. An error of its own comes out as a MeasureError that names whose code it is.

    What the project raises on purpose keeps its class, and says `raised_by`. Untouched are: what comes out of a sidecar
    that runs in the model or is one of `sidecars`, no memory, a lost device, Ctrl-C, a model that is not restored.
    """

    def is_of_an_editor(error: BaseException) -> bool:
        return _is_of(error, [*_riding(handle), *sidecars])

    try:
        with contained(whose, MeasureError, others=is_of_an_editor):
            return ask()
    except EditSafetyError as error:
        if not isinstance(error, (MeasureError, *OF_THE_RUN)) and not is_of_an_editor(error):
            error.raised_by = error.raised_by or whose
        raise
    except NOBODYS:
        raise
    except Exception as error:
        if lost_device(error) is not None or is_of_an_editor(error):
            raise
        raise MeasureError(f"{whose} failed: {sentence_of(error)}").with_traceback(error.__traceback__) from error


def _riding(handle: ModelHandle) -> list[Sidecar]:
    """What runs in the model now; what a measure put there by itself is gone with the measure."""
    hooks = (
        hook
        for module in handle.model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    )
    return [car for hook in hooks if isinstance(car := getattr(hook, "__self__", None), Sidecar)]


def _is_of(error: BaseException, sidecars: Sequence[Sidecar]) -> bool:
    """Whether an error, or one that it came of, went through a method of one of these."""
    owners = {id(car) for car in sidecars}
    return bool(owners) and any(id(_self(frame)) in owners for one in _chain(error) for frame in _frames(one))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _self(frame: FrameType) -> object:
    """What a method was called on; of another function its first argument, None where it has none."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
