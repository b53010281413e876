"""v*: the output that a module should have at the subject's last token, found by gradient descent.

Shared by ROME (module = the MLP's down-projection) and MEMIT and its relatives (module = a decoder block). One vector
delta is added at the subject's last token of every row: the request's prompt in each context, followed by the target,
and the row "SUBJECT is a" that holds the subject's own meaning in place.

    loss = mean over contexts of -(1/T) sum_a log P(t_a)
         + kl_factor * KL(P_delta || P_0) at the subject's last token of "SUBJECT is a"
         + v_weight_decay * ||delta|| / ||v0||^2

ROME, eq. 4; the decay is not squared in delta and the KL is read at the subject, as in the published code
(rome/compute_v.py at 0874014), not as in the paper's text. Ids are those of the prompt followed by those of the target;
the published code appends the target as text and tokenises again, which is the same for byte-level BPE and misplaces
the labels on SentencePiece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editing.keys import by_token
from editsafety.editing.subject import locate, locate_text
from editsafety.editing.suffix import Suffix
from editsafety.hyperparameters import Hparams
from editsafety.model import logits, trace
from editsafety.model.handle import ModelHandle

KL_PROMPT = "{} is a"


class TargetHparams(Hparams):
    """The numbers of the optimisation, named as in the published configurations."""

    v_num_grad_steps: int
    v_lr: float
    v_weight_decay: float
    clamp_norm_factor: float
    kl_factor: float = 0.0625  # every published configuration
    v_stop_loss: float = 0.05  # rome/compute_v.py at 0874014


@dataclass(frozen=True, eq=False)
class Target:
    """What an edit wants a module to give; losses in nats."""

    # v*, `[d]` float32.
    value: Tensor
    # v0: the module's own output in the bare prompt, `[d]` float32.
    start: Tensor
    # The whole objective at the end, weight decay included.
    loss: float
    # The mean over the target's tokens.
    nll: float
    # KL(P_delta || P_0), before its factor.
    kl: float
    # Of the optimiser.
    steps: int


def optimise(
    handle: ModelHandle,
    module: str,
    request: EditRequest,
    contexts: Sequence[str],
    settings: TargetHparams,
    *,
    whole_rows: bool = False,
) -> Target:
    """v* of `request` at the output of `module`; `contexts[0]` must be the bare `{}`. The model is left as it was.

    Stops when the loss is below `v_stop_loss`, is not finite, or after `v_num_grad_steps` passes (the last of which
    only measures). The norm of v* - v0 never exceeds `clamp_norm_factor` * ||v0||. With `whole_rows` every pass runs
    every token: slower, the same up to rounding.
    """
    with gradients.only(handle.model):
        search = _Search(handle, module, request, contexts, whole_rows)
        optimiser = torch.optim.Adam([search.delta], lr=settings.v_lr)
        steps = 0
        while True:
            nll, kl = search.losses()
            decay = settings.v_weight_decay * search.delta.norm() / search.start.norm() ** 2
            loss = nll + settings.kl_factor * kl + decay
            figures = (loss.item(), nll.item(), kl.item())
            if not settings.v_stop_loss <= figures[0] < math.inf or steps == settings.v_num_grad_steps - 1:
                break
            (search.delta.grad,) = torch.autograd.grad(loss, [search.delta])
            optimiser.step()
            steps += 1
            with torch.no_grad():
                search.delta *= (settings.clamp_norm_factor * search.start.norm() / search.delta.norm()).clamp(max=1.0)
    return Target(search.start + search.delta.detach(), search.start, *figures, steps)


class _Search:
    """The rows of one optimisation, the vector that is being found, and the two losses that depend on the model."""

    def __init__(
        self, handle: ModelHandle, module: str, request: EditRequest, contexts: Sequence[str], whole_rows: bool
    ) -> None:
        self.handle, self.module = handle, module
        target = handle.target_ids(request.target_new, request.filled)
        prompts = [locate(handle, request, context) for context in contexts]
        kl = locate_text(handle, KL_PROMPT, request.subject)
        starts = [0 if whole_rows else located.subject for located in (*prompts, kl)]
        self.suffix = Suffix(handle, [*((*prompt.ids, *target[:-1]) for prompt in prompts), kl.ids], starts)
        self.places = torch.tensor([located.subject for located in (*prompts, kl)]) - torch.tensor(starts)
        read = [(j, len(p.ids) - 1 + a - starts[j]) for j, p in enumerate(prompts) for a in range(len(target))]
        read.append((len(prompts), int(self.places[-1])))
        self.rows, self.positions = torch.tensor(read).T
        self.labels = torch.tensor(target * len(prompts), device=handle.device)
        self.delta = torch.zeros(self._width(), device=handle.device, requires_grad=True)
        self.start = torch.zeros_like(self.delta, requires_grad=False)  # v0, known after the first pass
        self.before: Tensor | None = None  # log P_0, likewise

    def losses(self) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood per target token, and KL(P_delta || P_0), with delta in place."""
        with trace.watch(self.handle.model, change={self.module: self._shifted}) as seen:
            scores = self._scores()
        if self.before is None:
            self.before = scores[-1].detach()
            output = by_token(seen.outputs[self.module].detach(), *self.suffix.batch.ids.shape)
            self.start = output[0, self.places[0]].to(self.delta)
        nll = -scores[:-1].gather(1, self.labels[:, None]).mean()
        kl = (scores[-1].exp() * (scores[-1] - self.before)).sum()
        return nll, kl

    def _width(self) -> int:
        return int(self.handle.model.config.get_text_config().hidden_size)

    def _scores(self) -> Tensor:
        """Log-probabilities at the positions that are read, `[contexts * T + 1, vocab]`, the last for the KL."""
        with logits.only_at(self.handle, self.rows, self.positions):
            return logits.log_probabilities(self.suffix.logits()[0]).to(self.labels.device)

    def _shifted(self, output: Tensor) -> Tensor:
        count, width = self.suffix.batch.ids.shape
        here = torch.zeros(count, width, 1, dtype=output.dtype, device=output.device)
        here[torch.arange(count), self.places] = 1.0
        return output + (here * self.delta.to(output)).reshape(output.shape)
