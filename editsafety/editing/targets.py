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

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from editsafety.datasets.request import EditRequest
from editsafety.editing import buckets, gradients
from editsafety.editing.keys import by_token
from editsafety.editing.subject import locate, locate_text
from editsafety.editing.suffix import Suffix, cannot_go_on
from editsafety.engine.above import Above
from editsafety.engine.lean import Lean
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

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "clamp_norm_factor": (0.5, 2),
        "v_lr": (0.5, 2),
        "v_num_grad_steps": (0.5, 2),
        "v_weight_decay": (0.1, 10),
        "kl_factor": (0.25, 4),
    }


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
    every token: slower, the same up to rounding. So it does by itself on a model that does not go on (`cannot_go_on`).
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
                together = [searches[place] for place in bucket]
                _descend(_Bucket.of(handle, module, together, lean=len(searches) > 1), settings)
        return _packed([search.found for search in searches if search.found is not None])

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
    # What has converged drifts on here, unread: its delta has been noted.
    deltas = torch.zeros_like(batch.start, requires_grad=True)
    optimiser = torch.optim.Adam([deltas], lr=settings.v_lr)
    rows = list(range(len(batch.searches)))
    for step in itertools.count():
        losses, figures = batch.losses(deltas if len(rows) == len(deltas) else deltas[rows], settings)
        going = []
        for place, (search, found) in enumerate(zip(batch.searches, figures, strict=True)):
            if settings.v_stop_loss <= found[0] < math.inf and step < settings.v_num_grad_steps - 1:
                going.append(place)
            else:
                search.end(batch.start[place], deltas[rows[place]], found, step)
        if not going:
            return
        # Each loss depends on one delta alone, so that the gradient of their sum is each one's own.
        total = losses.sum() if len(going) == len(rows) else losses[going].sum()
        (deltas.grad,) = torch.autograd.grad(total, [deltas])
        optimiser.step()
        rows, batch = [rows[place] for place in going], batch.only(going)
        with torch.no_grad():
            most = settings.clamp_norm_factor * batch.start.norm(dim=1)
            deltas[rows] *= (most / deltas[rows].norm(dim=1)).clamp(max=1.0)[:, None]


class _Search:
    """One request: its rows, where they are changed and read, and what was found in the end."""

    def __init__(self, handle: ModelHandle, request: EditRequest, contexts: Sequence[str], whole_rows: bool) -> None:
        target = handle.target_ids(request.target_new, request.filled)
        prompts = [locate(handle, request, context) for context in contexts]
        kl = locate_text(handle, KL_PROMPT, request.subject)
        whole = whole_rows or cannot_go_on(handle) is not None
        self.starts = [0 if whole else located.subject for located in (*prompts, kl)]
        self.rows = [*((*prompt.ids, *target[:-1]) for prompt in prompts), kl.ids]
        # From here on columns of what is run: where the subject's last token is, and where scores are read (KL last).
        self.places = [located.subject - start for located, start in zip((*prompts, kl), self.starts, strict=True)]
        first = [len(prompt.ids) - 1 - start for prompt, start in zip(prompts, self.starts, strict=False)]
        self.read = [(row, place + a) for row, place in enumerate(first) for a in range(len(target))]
        self.read.append((len(prompts), self.places[-1]))
        self.labels = target * len(prompts)
        # All that it depends on beside the model, module and numbers.
        self.question = [self.rows, self.starts, self.places, target]
        self.width = max(len(row) - start for row, start in zip(self.rows, self.starts, strict=True))
        self.found: Target | None = None

    def end(self, start: Tensor, delta: Tensor, figures: tuple[float, float, float], steps: int) -> None:
        """Note what it came to: v0 and delta `[d]`, and loss, nll and kl with delta in place."""
        self.found = Target(start + delta.detach(), start, *figures, steps)


class _ScoresRead:
    """Where the scores of a batch are read, and what the objectives make of them."""

    def __init__(self, searches: Sequence[_Search], device: torch.device) -> None:
        each = len(searches[0].rows)
        self.read = [(place * each + row, at) for place, one in enumerate(searches) for row, at in one.read]
        self.rows, self.places = torch.tensor(self.read).T
        labels = [label for one in searches for label in (*one.labels, 0)]  # what stands beside has none
        self.labels = torch.tensor(labels, device=device)[:, None]
        counts = [len(one.labels) for one in searches]
        ends = list(itertools.accumulate(count + 1 for count in counts))
        self.beside = torch.tensor([end - 1 for end in ends], device=device)
        # Of each search its scores, `[searches, most]`; behind the last of them a place that holds zero.
        spread = torch.full((len(searches), max(counts)), len(labels))
        for row, (end, count) in enumerate(zip(ends, counts, strict=True)):
            spread[row, :count] = torch.arange(end - 1 - count, end - 1)
        self.spread, self.counts = spread.to(device), torch.tensor(counts, device=device)

    def nll(self, scores: Tensor) -> Tensor:
        """The mean negative log-likelihood of each search per target token, `[searches]`, of `[positions, vocab]`."""
        picked = -scores.gather(1, self.labels).flatten()
        return functional.pad(picked, (0, 1))[self.spread].sum(1) / self.counts


@dataclass(eq=False)
class _Bucket:
    """Searches whose rows are run together, one search after the other; each has as many rows as any other."""

    handle: ModelHandle
    module: str
    searches: Sequence[_Search]
    reading: _ScoresRead
    suffix: Suffix
    # What lies below the module does not know of delta.
    above: Above
    # How the passes above it are run; None for whole ones.
    lean: Lean | None
    # v0 `[searches, d]` float32, and log P_0 `[searches, vocab]`; known after the first pass.
    start: Tensor
    before: Tensor | None = None

    @classmethod
    def of(cls, handle: ModelHandle, module: str, searches: Sequence[_Search], *, lean: bool) -> _Bucket:
        """What stands before the subjects is computed here."""
        rows = [row for search in searches for row in search.rows]
        starts = [start for search in searches for start in search.starts]
        suffix, reading = Suffix(handle, rows, starts), _ScoresRead(searches, handle.device)
        start = torch.zeros(len(searches), int(handle.model.config.get_text_config().hidden_size), device=handle.device)
        how = Lean.of(handle, module, suffix.batch.ids, reading.read) if lean else None
        return cls(handle, module, searches, reading, suffix, Above.of(handle, module), how, start)

    def only(self, going: Sequence[int]) -> _Bucket:
        """The batch without what has converged."""
        if len(going) == len(self.searches):
            return self
        each = len(self.searches[0].rows)
        rows = [place * each + row for place in going for row in range(each)]
        searches, suffix = [self.searches[place] for place in going], self.suffix.of_rows(rows)
        reading = _ScoresRead(searches, self.handle.device)
        return replace(
            self,
            searches=searches,
            reading=reading,
            suffix=suffix,
            above=self.above.of_rows(rows),
            lean=self.lean and Lean.of(self.handle, self.module, suffix.batch.ids, reading.read),
            start=self.start[going],
            before=None if self.before is None else self.before[going],
        )

    def losses(self, deltas: Tensor, settings: TargetHparams) -> tuple[Tensor, list[tuple[float, float, float]]]:
        """The objective of every search with its delta in place; the same, and its nll and KL(P_delta || P_0)."""
        scores = self._scores(deltas)
        beside = scores.index_select(0, self.reading.beside)
        if self.before is None:
            self.before = beside.detach().clone()
        nll = self.reading.nll(scores)
        kl = (beside.exp() * (beside - self.before)).sum(1)
        decay = settings.v_weight_decay * deltas.norm(dim=1) / self.start.norm(dim=1) ** 2
        losses = nll + settings.kl_factor * kl + decay
        return losses, [(loss, n, k) for loss, n, k in torch.stack([losses, nll, kl], 1).tolist()]

    def _scores(self, deltas: Tensor) -> Tensor:
        """Log-probabilities where they are read, `[positions, vocab]`; the first time, v0 is noted as well."""
        if self.before is not None:
            with self.above.passing(), nullcontext() if self.lean is None else self.lean.passing():
                return self._run(deltas)[0]
        with self.above.passing():
            scores, output = self._run(deltas)
        by_row = by_token(output.detach(), *self.suffix.batch.ids.shape)
        each = len(self.searches[0].rows)
        for place, search in enumerate(self.searches):
            self.start[place] = by_row[place * each, search.places[0]]
        self._prove(scores, deltas)
        return scores

    def _prove(self, scores: Tensor, deltas: Tensor) -> None:
        """After the first pass: see that the others may leave something out."""

        def entered() -> Tensor:
            with self.above.passing():
                return self._run(deltas)[0]

        def leanly() -> Tensor:
            assert self.lean is not None
            with self.lean.passing():
                return entered()

        self.above.prove(self.module, scores, entered)
        if self.lean is not None:
            self.lean.prove(scores.detach(), leanly)

    def _run(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the module's output with every delta at the subject's last token of its rows."""
        count, width = self.suffix.batch.ids.shape
        places = [place for search in self.searches for place in search.places]

        def shifted(output: Tensor) -> Tensor:
            here = torch.zeros(count, width, 1, dtype=output.dtype, device=output.device)
            here[torch.arange(count), places] = 1.0
            shift = here.reshape(len(deltas), -1, width, 1) * deltas.to(output)[:, None, None]
            return output + shift.reshape(output.shape)

        with trace.watch(self.handle.model, change={self.module: shifted}) as seen:
            with logits.only_at(self.handle, self.reading.rows, self.reading.places):
                scores = logits.log_probabilities(self.suffix.logits()[0]).to(self.handle.device)
            return scores, seen.outputs[self.module]
