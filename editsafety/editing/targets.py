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

Several requests are sought together: in batches of rows of nearly one width, each with its own delta and its own state
of the optimiser, until it has converged by itself. One request has some 20 to 200 tokens, too few for the rate that a
machine has in larger products. What is summed in another batch is rounded in another way, so v* may depend in its last
digits on what is beside it (tested: by less than 1e-5). Alone it is the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import buckets, gradients
from editsafety.editing.keys import by_token
from editsafety.editing.subject import locate, locate_text
from editsafety.editing.suffix import Suffix
from editsafety.engine.above import Above
from editsafety.engine.once import once
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
    return optimise_many(handle, module, [request], contexts, settings, whole_rows=whole_rows)[0]


def optimise_many(
    handle: ModelHandle,
    module: str,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    settings: TargetHparams,
    *,
    whole_rows: bool = False,
) -> tuple[Target, ...]:
    """v* of every request, each as `optimise` finds it up to rounding.

    A plain engine has them sought one by one. What was sought on the same model before is not sought again (`once`).
    """
    if not requests:
        return ()
    searches = [_Search(handle, request, contexts, whole_rows) for request in requests]

    def seek() -> dict[str, Tensor]:
        with gradients.only(handle.model):
            most = 0 if handle.engine.plain else buckets.most_tokens(handle)
            for bucket in buckets.by_width([one.width for one in searches], len(searches[0].rows), most):
                _descend(_Bucket.of(handle, module, [searches[place] for place in bucket]), settings)
        return _packed([search.target() for search in searches])

    numbers = {name: getattr(settings, name) for name in TargetHparams.model_fields}
    asked = {"what": "v*", "module": module, "numbers": numbers, "of": [search.question for search in searches]}
    return _unpacked(once(handle, asked, seek))


def _packed(targets: Sequence[Target]) -> dict[str, Tensor]:
    figures = [(one.loss, one.nll, one.kl, one.steps) for one in targets]
    return {
        "value": torch.stack([one.value for one in targets]),
        "start": torch.stack([one.start for one in targets]),
        "figures": torch.tensor(figures, dtype=torch.float32),
    }


def _unpacked(tensors: Mapping[str, Tensor]) -> tuple[Target, ...]:
    rows = zip(tensors["value"], tensors["start"], tensors["figures"].tolist(), strict=True)
    return tuple(
        Target(value.clone(), start.clone(), loss, nll, kl, int(steps)) for value, start, (loss, nll, kl, steps) in rows
    )


def _descend(batch: _Bucket, settings: TargetHparams) -> None:
    """Gradient descent on every delta of a batch, until the last of them has converged."""
    optimiser = torch.optim.Adam([search.delta for search in batch.searches], lr=settings.v_lr)
    while True:
        losses = batch.losses(settings)
        going = [search for search in batch.searches if search.goes_on(settings)]
        if not going:
            return
        # Each loss depends on one delta alone, so that the gradient of their sum is each one's own.
        total = torch.stack([losses[search] for search in going]).sum()
        for search in batch.searches:
            search.delta.grad = None  # the optimiser leaves what has converged where it is
        for search, gradient in zip(going, torch.autograd.grad(total, [one.delta for one in going]), strict=True):
            search.delta.grad = gradient
        optimiser.step()
        for search in going:
            search.clamp(settings.clamp_norm_factor)
        batch = batch.only(going)


class _Search:
    """One request: its rows, the vector that is being found for it, and what that comes to so far."""

    def __init__(self, handle: ModelHandle, request: EditRequest, contexts: Sequence[str], whole_rows: bool) -> None:
        target = handle.target_ids(request.target_new, request.filled)
        prompts = [locate(handle, request, context) for context in contexts]
        kl = locate_text(handle, KL_PROMPT, request.subject)
        self.starts = [0 if whole_rows else located.subject for located in (*prompts, kl)]
        self.rows = [*((*prompt.ids, *target[:-1]) for prompt in prompts), kl.ids]
        # From here on columns of what is run: where the subject's last token is, and where scores are read (KL last).
        self.places = [located.subject - start for located, start in zip((*prompts, kl), self.starts, strict=True)]
        first = [len(prompt.ids) - 1 - start for prompt, start in zip(prompts, self.starts, strict=False)]
        self.read = [(row, place + a) for row, place in enumerate(first) for a in range(len(target))]
        self.read.append((len(prompts), self.places[-1]))
        self.labels = torch.tensor(target * len(prompts), device=handle.device)
        # All that it depends on beside the model, module and numbers.
        self.question = [self.rows, self.starts, self.places, target]
        self.width = max(len(row) - start for row, start in zip(self.rows, self.starts, strict=True))
        size = int(handle.model.config.get_text_config().hidden_size)
        self.delta = torch.zeros(size, device=handle.device, requires_grad=True)
        self.start = torch.zeros_like(self.delta, requires_grad=False)  # v0, known after the first pass
        self.before: Tensor | None = None  # log P_0, likewise
        self.figures = (math.nan, math.nan, math.nan)  # loss, nll and kl with delta in place
        self.steps = 0

    def losses(self, scores: Tensor, beside: Tensor, settings: TargetHparams) -> tuple[Tensor, Tensor, Tensor]:
        """The objective, the mean negative log-likelihood per target token, and KL(P_delta || P_0).

        `scores` `[contexts * T, vocab]` and `beside` `[1, vocab]` are the log-probabilities that the two are read from.
        """
        if self.before is None:
            self.before = beside[0].detach().clone()
        nll = -scores.gather(1, self.labels[:, None]).mean()
        kl = (beside[0].exp() * (beside[0] - self.before)).sum()
        decay = settings.v_weight_decay * self.delta.norm() / self.start.norm() ** 2
        return nll + settings.kl_factor * kl + decay, nll, kl

    def goes_on(self, settings: TargetHparams) -> bool:
        """Whether there is another step to make."""
        return settings.v_stop_loss <= self.figures[0] < math.inf and self.steps < settings.v_num_grad_steps - 1

    @torch.no_grad()
    def clamp(self, factor: float) -> None:
        """End a step: bring delta back to where it may be."""
        self.delta *= (factor * self.start.norm() / self.delta.norm()).clamp(max=1.0)
        self.steps += 1

    def target(self) -> Target:
        """What was found."""
        return Target(self.start + self.delta.detach(), self.start, *self.figures, self.steps)


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Searches whose rows are run together, one search after the other; each has as many rows as any other."""

    handle: ModelHandle
    module: str
    searches: Sequence[_Search]
    suffix: Suffix
    # What lies below the module does not know of delta.
    above: Above

    @classmethod
    def of(cls, handle: ModelHandle, module: str, searches: Sequence[_Search]) -> _Bucket:
        """What stands before the subjects is computed here."""
        rows = [row for search in searches for row in search.rows]
        starts = [start for search in searches for start in search.starts]
        return cls(handle, module, searches, Suffix(handle, rows, starts), Above.of(handle, module))

    def only(self, going: Sequence[_Search]) -> _Bucket:
        """The batch without what has converged."""
        if len(going) == len(self.searches):
            return self
        each = len(self.searches[0].rows)
        kept = [place for place, search in enumerate(self.searches) if search in going]
        rows = [place * each + row for place in kept for row in range(each)]
        return replace(self, searches=going, suffix=self.suffix.of_rows(rows), above=self.above.of_rows(rows))

    def losses(self, settings: TargetHparams) -> dict[_Search, Tensor]:
        """The objective of every search with its delta in place; its figures are noted in it."""
        scores, output = self._run()
        if self.searches[0].before is None:
            self._note_start(output.detach())
            self.above.prove(self.module, scores, lambda: self._run()[0])
        # Once split, as every slice would have a gradient of the size of the whole.
        parts = torch.split(scores, [size for search in self.searches for size in (len(search.read) - 1, 1)])
        pairs = zip(self.searches, parts[::2], parts[1::2], strict=True)
        found = {search: search.losses(own, beside, settings) for search, own, beside in pairs}
        figures = torch.stack([torch.stack(losses) for losses in found.values()]).tolist()
        for search, (loss, nll, kl) in zip(found, figures, strict=True):
            search.figures = (loss, nll, kl)
        return {search: losses[0] for search, losses in found.items()}

    def _note_start(self, output: Tensor) -> None:
        by_row = by_token(output, *self.suffix.batch.ids.shape)
        each = len(self.searches[0].rows)
        for place, search in enumerate(self.searches):
            search.start = by_row[place * each, search.places[0]].to(search.delta)

    def _run(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities where each search reads them, `[positions, vocab]`, and the module's output."""
        change = {self.module: self._shifted}
        with self.above.passing(), trace.watch(self.handle.model, change=change) as seen:
            return self._scores(), seen.outputs[self.module]

    def _scores(self) -> Tensor:
        each = len(self.searches[0].rows)
        read = [(i * each + row, place) for i, search in enumerate(self.searches) for row, place in search.read]
        rows, places = torch.tensor(read).T
        with logits.only_at(self.handle, rows, places):
            return logits.log_probabilities(self.suffix.logits()[0]).to(self.handle.device)

    def _shifted(self, output: Tensor) -> Tensor:
        """Every delta at the subject's last token of its rows."""
        count, width = self.suffix.batch.ids.shape
        here = torch.zeros(count, width, 1, dtype=output.dtype, device=output.device)
        here[torch.arange(count), [place for search in self.searches for place in search.places]] = 1.0
        delta = torch.stack([search.delta for search in self.searches]).to(output)
        shift = here.reshape(len(self.searches), -1, width, 1) * delta[:, None, None]
        return output + shift.reshape(output.shape)
