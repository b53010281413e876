"""EditSession: what is applied to the model right now. Leaving it restores every byte."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from editsafety.edits.baseline import Baseline
from editsafety.edits.behaviour import Behaviour
from editsafety.edits.edit import Edit, Sidecar
from editsafety.edits.fit import refuse_unfit
from editsafety.edits.originals import Original, laid_out_as
from editsafety.edits.seal import Frame, Seal, random_states
from editsafety.edits.starting_point import StartingPoint, seal_within
from editsafety.edits.testimony import testify, withdraw
from editsafety.edits.threads import Threads
from editsafety.errors import EditError, UndoError
from editsafety.model.handle import ModelHandle
from editsafety.model.meter import synchronise

Proof = Literal["always", "in doubt", "never"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What is remembered of an applied edit; none of its tensors."""

    # Who made it.
    editor: str
    # Of what.
    request_ids: tuple[str, ...]
    # What it changes.
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, edit: Edit) -> Self:
        """The edit without its tensors."""
        return cls(edit.editor, edit.request_ids, edit.parameters)


@dataclass(frozen=True, eq=False)
class Mark:
    """A state of a session."""

    # Of all parameters that were changed by then.
    values: tuple[tuple[nn.Parameter, Tensor], ...]
    # Those in place.
    sidecars: tuple[Sidecar, ...]
    # The edits so far.
    applied: tuple[Applied, ...]


class EditSession:
    """A with-block around everything that happens to a model.

    The first touch of a parameter keeps its tensor aside and works on a copy, so undo is a pointer swap and exact;
    subtracting a delta is not (45-78 % of the entries differ afterwards). `park="cpu"` moves the originals away
    instead, for models that fill the device, and copies their bytes back. Sessions nest.

    A sidecar whose settings hold a `lineage` is one of a line that goes on growing: of one class, target and lineage
    only the last to be applied does anything (they see to that themselves), so the earlier one is let go. Together with
    `applied`, which keeps no tensors, a thousand edits on top of each other take no more memory than the last.

    After the block: `leftovers` names what was left behind (hooks, modules, modes, flags, settings, parameters moved to
    other memory, functions of torch or of a class that were replaced); all of it has been put back. What cannot be put
    back raises UndoError: a weight written in place by someone else, a vocabulary that grew, a thread that goes on.
    Errors and Ctrl-C restore just the same.

    The outermost session also proves by behaviour that the model is what it was: what it makes of a fixed sentence,
    forwards and backwards, has to be the same bits. `baseline` is what it did before; taken on entry when not given.
    `prove` says when: "always" (the outermost session's own choice), "in doubt" (where anything else was found, or an
    error came) or "never" (the choice of a session in another one), which leaves torch and the process alone as well.
    """

    def __init__(
        self,
        handle: ModelHandle,
        *,
        park: Literal["device", "cpu"] = "device",
        baseline: Baseline | None = None,
        prove: Proof | None = None,
    ) -> None:
        self.handle = handle
        self.leftovers: tuple[str, ...] = ()
        self.applied: list[Applied] = []
        self.undo_seconds = 0.0
        self._park = park
        self._baseline, self._prove = baseline, prove
        self._originals: dict[int, Original] = {}
        self._riding: list[tuple[Sidecar, tuple[RemovableHandle, ...]]] = []

    def __enter__(self) -> Self:
        self._outside = self.handle.open_sessions
        proof: Proof = "never" if self._outside else "always"
        self._proof = self._prove or proof
        if self._baseline is None and self._proof != "never":
            self._baseline = Baseline.of(self.handle)
        self._threads = None if self._proof == "never" else Threads.now()
        within, watched = self._outside > 0, self._proof != "never"
        found = StartingPoint.find(self.handle, within=within, watched=watched)
        self._start: StartingPoint | None = found
        self._own = within and not watched  # an editor's own session leaves reading every byte to the one around it
        self._frame, self._seal, self._surroundings = found.frame, found.seal, found.surroundings
        self._rng = random_states()
        self._names, self._devices = self._parameters(), self.handle.devices
        self._touched = self.handle.engine.touched
        if not self._outside:
            self.handle.engine.touched = frozenset()
            self.handle.engine.found = found
            testify(self.handle, self._frame, self._seal, self._surroundings, self._baseline)
        self.handle.open_sessions += 1
        return self

    def apply(self, edit: Edit) -> None:
        """Apply an edit on top of what is there. Raises EditError, and changes nothing, when it does not fit."""
        refuse_unfit(self.handle, edit)
        for parameter, value in self._changes(edit):
            self._write(parameter, value)
        for car in edit.sidecars:
            self._ride(car)
        self.applied.append(Applied.of(edit))

    @property
    def sidecars(self) -> tuple[Sidecar, ...]:
        """Those that run now, in the order in which they were applied; superseded ones are gone."""
        return tuple(car for car, _ in self._riding)

    def mark(self) -> Mark:
        """The state of the session now, for `back_to`. Costs the memory of what later edits change, no copy is made."""
        kept = [(original.parameter, original.parameter.data) for original in self._originals.values()]
        values = tuple((parameter, data.clone() if self._park == "cpu" else data) for parameter, data in kept)
        return Mark(values, self.sidecars, tuple(self.applied))

    def back_to(self, mark: Mark) -> None:
        """Make the model bit for bit what it was at a mark of this session, earlier or later than now."""
        then = {id(parameter): value for parameter, value in mark.values}
        for key, original in self._originals.items():
            value = then.get(key, original.value)
            if self._park == "cpu":
                original.parameter.data.copy_(value)
            else:
                original.parameter.data = value
        self._stop_riding(self._riding)
        self._riding = []
        for car in mark.sidecars:
            self._ride(car)
        self.applied = list(mark.applied)

    def commit(self) -> None:
        """Let the model keep what it is now: leaving the session comes back to this, and marks from before are void.

        Sidecars stay hooked. The handle goes by the fingerprint of the new weights from now on, so that nothing which
        was made for the old ones (edits, statistics) is taken for theirs.
        """
        self.handle.identity = self.handle.fingerprint()
        withdraw(self.handle)
        self._start = None
        frame, seal = Frame.of(self.handle), Seal.of(self.handle)
        self._originals, self._riding, self.applied = {}, [], []
        self._frame = replace(frame, handle={**frame.handle, "open_sessions": self._outside})
        self._seal = seal
        if self._baseline is not None:
            self._baseline = self._baseline.behaving(Behaviour.of(self.handle))

    def _ride(self, car: Sidecar) -> None:
        """Let a sidecar run from now on, and one that it supersedes no longer."""
        target = self.handle.model.get_submodule(car.target)
        hooks: list[RemovableHandle] = []
        if type(car).before is not Sidecar.before:
            hooks.append(target.register_forward_pre_hook(car.before, prepend=True, with_kwargs=True))
        hooks.append(target.register_forward_hook(car.after, with_kwargs=True))
        old = [one for one in self._riding if _supersedes(car, one[0])]
        self._stop_riding(old)
        self._riding = [one for one in self._riding if not _supersedes(car, one[0])] + [(car, tuple(hooks))]

    def _stop_riding(self, chosen: Sequence[tuple[Sidecar, tuple[RemovableHandle, ...]]]) -> None:
        self.handle.engine.note_change()
        for _, hooks in chosen:
            for hook in hooks:
                hook.remove()

    def _changes(self, edit: Edit) -> list[tuple[nn.Parameter, Tensor]]:
        """The new values, all of them checked; a tied parameter may go by either of its names."""
        parameters = self._parameters()
        found: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for delta in edit.deltas:
            parameter = parameters[delta.parameter]
            current = found[id(parameter)][1] if id(parameter) in found else parameter.detach()
            with torch.inference_mode(False), torch.no_grad():
                found[id(parameter)] = (parameter, delta.on(current))
        return list(found.values())

    def borrow(self, names: Sequence[str]) -> dict[str, nn.Parameter]:
        """Trainable copies in the model's place, to be changed at will. Raises EditError for an unknown name."""
        parameters = self._parameters()
        for name in names:
            if name not in parameters:
                raise EditError(f"{self.handle.name} has no parameter {name!r} to train.")
        for name in names:
            with torch.inference_mode(False), torch.no_grad():
                self._write(parameters[name], parameters[name].detach().clone())
            parameters[name].requires_grad_(True)
        return {name: parameters[name] for name in names}

    def original(self, name: str) -> Tensor:
        """The value of a parameter before this session, as stored. Raises EditError for an unknown name."""
        if name not in self._names:
            raise EditError(f"{self.handle.name} has no parameter {name!r}.")
        parameter = self._names[name]
        kept = self._originals.get(id(parameter))
        return parameter.detach() if kept is None else kept.value.to(kept.home.device)

    def declared(self) -> tuple[str, ...]:
        """The parameters that the applied edits say they change, by the name that `changed` gives to a tied one."""
        names = {id(parameter): name for name, parameter in self.handle.model.named_parameters()}
        parameters = self._parameters()
        return tuple(sorted({names[id(parameters[name])] for edit in self.applied for name in edit.parameters}))

    def changed(self) -> tuple[str, ...]:
        """Names of the tensors that differ from the start of the session, whoever changed them."""
        return self._seal.changed(Seal.of(self.handle))

    def changed_elsewhere(self) -> tuple[str, ...]:
        """As `changed`, without reading what is in the memory where it was found and was not changed by a session.

        What somebody wrote there is told when the session is left: that reads every byte, and raises UndoError.
        """
        if self._start is None or self.handle.engine.plain:
            return self.changed()
        return self._seal.changed(self._start.sealed_elsewhere(self.handle))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = () if self._threads is None else self._threads.left_running()
        started = time.perf_counter()
        self.handle.open_sessions = self._outside
        if not self._outside:
            self.handle.engine.witness = self.handle.engine.found = None
        self.handle.engine.touched = self._touched
        try:
            self._stop_riding(self._riding)
            for original in self._originals.values():
                original.put_back()
            synchronise(*self._devices)
        except BaseException:
            self._frame.restore(self.handle, self._rng)  # flags, hooks and settings come back though a weight did not
            raise
        self.undo_seconds = time.perf_counter() - started
        doubtful = error is not None or bool(running)
        if self._proof == "always":
            self._put_back()
        try:
            remaining = self._remaining(doubtful=doubtful)
        except Exception:  # something was replaced that looking needs
            if self._proof != "in doubt" or not self._put_back():
                raise
            remaining = self._remaining(doubtful=True)
        lasting = self._surroundings.findings() if self._surroundings is not None and self.leftovers else ()
        if not remaining and not running and not lasting:
            if self._start is not None and not (doubtful or self.leftovers or self._outside or self._proof == "never"):
                self._start.hand_on(self.handle)
            return
        undo = UndoError(remaining, running=running, lasting=lasting, leftovers=self.leftovers)
        if error is not None and not isinstance(error, Exception):
            error.add_note(str(undo))  # Ctrl-C stays Ctrl-C
            return
        raise undo from error

    def _put_back(self) -> bool:
        """Bind functions and methods as they were; whether any was not."""
        found = () if self._baseline is None else self._baseline.put_back()
        self.leftovers += found
        return bool(found)

    def _remaining(self, *, doubtful: bool) -> list[str]:
        """Put everything back, with `leftovers` for what had to be; returns what is still not as it was."""
        self.leftovers += () if self._surroundings is None else self._surroundings.put_back()
        try:
            self.leftovers += self._frame.left_behind(self.handle)
        finally:
            self._frame.restore(self.handle, self._rng)
        remaining = self._differing()
        doubtful = doubtful or bool(remaining or self.leftovers)
        if doubtful and self._proof == "in doubt" and self._put_back() and remaining:
            remaining = self._differing()  # something may have been replaced that reading needs
        if self.leftovers:
            remaining += self._frame.left_behind(self.handle)
        if self._baseline is not None and not remaining and (doubtful or self._proof == "always"):
            remaining += self._baseline.differences(self.handle)
        return remaining

    def _differing(self) -> list[str]:
        now = seal_within(self.handle) if self._own else Seal.of(self.handle)
        return [f"{name} differs" for name in self._seal.changed(now)]

    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.handle.model.named_parameters(remove_duplicate=False))

    def _write(self, parameter: nn.Parameter, value: Tensor) -> None:
        self.handle.engine.note_change()
        if id(parameter) not in self._originals:
            home = parameter.data
            kept = home.to("cpu", copy=True) if self._park == "cpu" else home
            self._originals[id(parameter)] = Original(parameter, home, kept, parameter.requires_grad, parameter.grad)
            names = (name for name, one in self._parameters().items() if one is parameter)
            self.handle.engine.touched = (self.handle.engine.touched or frozenset()).union(names)
        if self._park == "cpu":
            parameter.data.copy_(value)
        else:
            parameter.data = laid_out_as(self._originals[id(parameter)].home, value)


def _supersedes(later: Sidecar, earlier: Sidecar) -> bool:
    """Whether both are of one line that goes on growing, of which only the last does anything."""
    if type(later) is not type(earlier) or later.target != earlier.target:
        return False
    line = later.settings().get("lineage")
    return line is not None and line == earlier.settings().get("lineage")


class EditedSession(EditSession):
    """A session with an edit, which is applied on entry."""

    def __init__(self, handle: ModelHandle, edit: Edit) -> None:
        super().__init__(handle)
        self._edit = edit

    def __enter__(self) -> Self:
        super().__enter__().apply(self._edit)
        return self
