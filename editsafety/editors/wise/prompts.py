"""What WISE trains a side copy on: the prompts of one edit, and the side copy while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from editsafety.datasets.request import EditRequest
from editsafety.editing import subject
from editsafety.editing.keys import by_token
from editsafety.editing.suffix import Suffix
from editsafety.editors._sidecar import Voice, riding
from editsafety.editors.wise.side_copy import activation_of, distances
from editsafety.model import logits, trace
from editsafety.model.handle import ModelHandle


@dataclass(eq=False)
class Learner(Voice):
    """D while it is trained."""

    # The edited module.
    target: str
    # By which the sidecars of one sequence know each other.
    lineage: int
    # D, `[d_out, d_in]`.
    side: Tensor
    # 1 where D is added, `[rows, seq, 1]`.
    here: Tensor

    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        """The layer's output, with what D adds to it at the learnt tokens."""
        here = self.here.to(output).reshape(*output.shape[:-1], 1)
        return output + here * linear(received, self.side.to(received))


class EditPrompts:
    """The prompts of one edit in all contexts, each followed by the target.

    Below the edited layer nothing changes: what the layer receives and returns is recorded once, and so is everything
    before the first token that goes to the side copy.
    """

    def __init__(
        self, handle: ModelHandle, request: EditRequest, templates: Sequence[str], learner: Learner, *, by_subject: bool
    ) -> None:
        self.handle, self.activation, self.learner = handle, activation_of(handle), learner
        target = self.handle.target_ids(request.target_new, request.filled)
        prompts = [subject.locate(self.handle, request, template) for template in templates]
        starts = [p.subject if by_subject else len(p.ids) - 1 for p in prompts]
        rows = [[*p.ids, *target[:-1]] for p in prompts]
        self._record(rows, starts, by_subject)
        self.suffix = Suffix(self.handle, rows, starts)
        here = torch.ones_like(self.suffix.batch.mask)
        if by_subject:
            here[:, 1:] = 0
        self.learner.here = here[..., None]
        read = [(j, len(p.ids) - 1 + a - starts[j]) for j, p in enumerate(prompts) for a in range(len(target))]
        self.rows, self.positions = torch.tensor(read).T
        self.labels = torch.tensor(target * len(prompts), device=self.handle.device)

    @torch.no_grad()
    def _record(self, rows: Sequence[Sequence[int]], starts: Sequence[int], by_subject: bool) -> None:
        batch, name = self.handle.batch(rows), self.learner.target
        with trace.watch(self.handle.model, [name], stop=True) as seen:
            self.handle.run(batch.ids, batch.mask)
        received = by_token(seen.inputs[name], *batch.ids.shape)
        output = self.handle.model.get_submodule(name).forward(received)  # its own: hooks do not run
        place = torch.arange(batch.ids.shape[1], device=output.device)
        first, real = torch.tensor(starts, device=output.device)[:, None], batch.mask.bool().to(output.device)
        inside = place == first if by_subject else (place >= first) & real
        outside = real & ~inside
        self.inside, self.outside = (received[inside], output[inside]), (received[outside], output[outside])

    def nll(self) -> Tensor:
        """Mean over contexts of the mean over target tokens, nats."""
        with riding(self.handle.model, self.learner), logits.only_at(self.handle, self.rows, self.positions):
            scores = logits.log_probabilities(self.suffix.logits()[0]).to(self.labels.device)
        return -scores.gather(1, self.labels[:, None]).mean()

    def distances(self) -> tuple[Tensor, Tensor]:
        """Of the tokens that the edit is about, and of the others."""
        side = self.learner.side
        inside, outside = (
            distances(self.activation, output + linear(received, side.to(received)), output)
            for received, output in (self.inside, self.outside)
        )
        return inside, outside
