"""Whose fault an error is: the measure's whose code ran, unless it came out of what an editor runs in the model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from editsafety import measures
from editsafety.edits.edit import Edit, Sidecar
from editsafety.edits.session import EditSession
from editsafety.errors import (
    DataError,
    EditorError,
    EditorTimeoutError,
    EditSafetyError,
    MeasureError,
    NotPreparedError,
    StoreError,
    UndoError,
    UsageError,
)
from editsafety.measures import Inputs
from editsafety.measures.questions import Question, asked_together, hear_out
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.sidecars import EmptySidecar


class Raises:
    """A measure that does as a test wants."""

    name, version, scope = "theirs", 1, "model"

    def __init__(self, deed: Callable[[ModelHandle], object]) -> None:
        self.deed = deed

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        self.deed(handle)
        return ()

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        return self.deed(handle)

    def questions(self, handle: ModelHandle, inputs: Inputs) -> Sequence[Question]:
        self.deed(handle)
        return ()


class Ability:
    """A probe that fails."""

    name = "arithmetic"

    def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
        raise KeyError("answer")


class Trips(EmptySidecar):
    """Raises whatever it is given when the model runs."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return self._fall()

    def tensors(self) -> Mapping[str, torch.Tensor]:
        raise self.error

    def _fall(self) -> None:
        raise self.error


def raising(error: BaseException) -> Callable[[ModelHandle], object]:
    def deed(handle: ModelHandle) -> object:
        raise error

    return deed


def runs(handle: ModelHandle) -> object:
    return handle.logits(handle.batch([handle.ids("Ashurn works as a")]))


def caught(deed: Callable[[ModelHandle], object], handle: ModelHandle, inputs: Inputs | None = None) -> BaseException:
    with pytest.raises(BaseException) as found:  # noqa: PT011 (whatever comes is looked at by the test)
        measures.called(Raises(deed), handle, inputs or Inputs())
    return found.value


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("by nothing"), "measure theirs failed: ZeroDivisionError: by nothing"),
        (RuntimeError("shapes do not fit"), "measure theirs failed: RuntimeError: shapes do not fit"),
        (SystemExit(3), "measure theirs raised SystemExit: 3, which ends a program or a test and is no error"),
        (
            KeyboardInterrupt(),
            "measure theirs raised KeyboardInterrupt, which ends a program or a test",
        ),  # nobody's key
    ],
)
def test_what_a_measure_raises_names_the_measure_with_class_and_text(error: BaseException, said: str) -> None:
    found = caught(raising(error), tiny.handle("gpt2"))
    assert type(found) is MeasureError
    assert str(found).startswith(said)
    assert found.__cause__ is error


def test_all_code_of_a_measure_and_of_an_ability_answers_for_itself() -> None:
    handle, bad = tiny.handle("gpt2"), Raises(raising(ValueError("no")))
    with pytest.raises(MeasureError, match=r"^measure theirs failed: ValueError: no$"):
        measures.referred(bad, handle, Inputs())
    with (
        pytest.raises(MeasureError, match=r"^measure theirs failed: ValueError: no$"),
        asked_together(handle, [bad], Inputs()),
    ):
        pass
    with pytest.raises(MeasureError, match=r"^ability arithmetic failed: KeyError: 'answer'$"):
        measures.probed(Ability(), handle, 8)


def test_a_question_whose_end_cannot_be_told_is_the_fault_of_its_measure() -> None:
    def until(text: str, target: str) -> str | None:
        raise IndexError("no sentence")

    class Asks(Raises):
        """Asks a question with a faulty `until`."""

        def questions(self, handle: ModelHandle, inputs: Inputs) -> Sequence[Question]:
            return [Question("Ashurn works as a", 1, most=3, until=until)]

    handle = tiny.handle("gpt2")
    with (
        pytest.raises(MeasureError, match="'Ashurn works as a' failed in its `until`: IndexError: no sentence"),
        asked_together(handle, [Asks(runs)], Inputs()),
    ):
        hear_out(handle, [Question("Ashurn works as a", 1, most=3, until=until)])


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_no_memory_while_the_end_of_an_answer_is_looked_for_is_nobodys_fault(kind: type[Exception]) -> None:
    def until(text: str, target: str) -> str | None:
        raise kind("no room for a sentence")

    with pytest.raises(kind, match=r"^no room for a sentence$"):
        hear_out(tiny.handle("gpt2"), [Question("Ashurn works as a", 1, most=3, until=until)])


@pytest.mark.parametrize("kind", [DataError, UsageError, EditorError, EditSafetyError])
def test_what_the_project_raises_on_purpose_keeps_its_class_and_says_in_whose_code(kind: type[EditSafetyError]) -> None:
    error = kind("a prompt is too long")
    assert caught(raising(error), tiny.handle("gpt2")) is error
    assert error.raised_by == "measure theirs"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("full"),
        MemoryError(),
        RuntimeError("CUDA error: device-side assert triggered"),
        MeasureError("measure theirs cannot write"),
        EditorTimeoutError("too long"),
        NotPreparedError("rome", "tiny", "statistics"),
        StoreError("no room"),
        UndoError(["a weight differs"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_of_machine_run_or_session_passes_untouched(error: Exception) -> None:
    assert caught(raising(error), tiny.handle("gpt2")) is error
    assert not getattr(error, "raised_by", "")


def test_ctrl_c_in_a_measure_is_ctrl_c() -> None:
    assert type(caught(lambda handle: signal.raise_signal(signal.SIGINT), tiny.handle("gpt2"))) is KeyboardInterrupt


def retold(handle: ModelHandle) -> None:
    try:
        runs(handle)
    except Exception as error:
        raise LookupError("no answer") from error


@pytest.mark.parametrize("error", [ValueError("no codebook"), SystemExit(3), DataError("a row of a codebook")])
def test_what_a_sidecar_raises_when_a_measure_runs_the_model_is_not_the_measures(error: BaseException) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        session.apply(Edit("mine", (), handle.identity, sidecars=(Trips(error),)))
        assert caught(runs, handle) is error
        if isinstance(error, ValueError):  # also where the measure says something else about it
            assert isinstance(caught(retold, handle), LookupError)
        own = caught(raising(KeyError("own")), handle)  # its own fault stays its own
    assert not getattr(error, "raised_by", "")
    assert str(own) == "measure theirs failed: KeyError: 'own'"


def test_what_a_sidecar_raises_when_it_is_looked_at_is_not_the_measures_before_it_is_applied() -> None:
    handle, error = tiny.handle("gpt2"), ValueError("no tensors")
    car = Trips(error)
    edit = Edit("mine", (), handle.identity, sidecars=(car,))
    assert caught(lambda _: car.tensors(), handle, Inputs(edit=edit)) is error


def test_what_a_sidecar_of_the_measures_own_raises_is_the_measures() -> None:
    def tries(handle: ModelHandle) -> None:
        own: tuple[Sidecar, ...] = (Trips(ValueError("a trial")),)
        with EditSession(handle) as session:
            session.apply(Edit("a trial", (), handle.identity, sidecars=own))
            runs(handle)

    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        session.apply(Edit("mine", (), handle.identity, sidecars=(EmptySidecar(),)))
        assert str(caught(tries, handle)) == "measure theirs failed: ValueError: a trial"
