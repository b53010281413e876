"""Training of MEND's network: edits that should generalise and leave everything else alone.

One iteration is one edit of `batch_size` requests. Its prompts give x and g; the changed weights are then asked the
rephrasings and the locality texts, and the loss is

    cedit * -log P(target | rephrasing)  +  cloc * KL(model before || model after)

first the mean over target tokens, second the mean over the tokens that are read (all of an ordinary text, the answer's
of a neighbour), then over neighbours and over texts apart, and of these two. `accumulate_bs` iterations make a step of
Adam, all of them in one forward pass. Gradients flow through x' and g' and through no first derivative: x and g are
data, as in the published code.

An interrupted training goes on from its last checkpoint and ends with the same bytes as one that was not: whatever is
drawn depends on the seed and the iteration alone.

Where we differ from the published code: the rates are moved by `lr_lr` (theirs stay at `lr`, see `rates_at_lr`); the
first step is made after `accumulate_bs` iterations, not after one more; a model is never copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.editing import gradients
from editsafety.editors.mend.lessons import Lesson, Lessons
from editsafety.editors.mend.network import Hypernet, HypernetShape
from editsafety.editors.mend.token_gradients import TokenReading, TokenRow, changed, collect
from editsafety.errors import EditorError
from editsafety.hyperparameters import Hparams
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site
from editsafety.progress import Progress, Task

TEXT_TOKENS = 32  # of an ordinary text; the rest is cut off


class TrainingHparams(Hparams):
    """The numbers of the training, named as in the published configurations. Iterations count edits.

    final_lr: share of `lr` and `lr_lr` that is left at the end of a cosine; 1 for constant rates as published.
    training_seed: of the network's first values and of everything that is drawn.

    Four published defects, off by default:
    rates_at_lr: rates are moved by `lr`, not `lr_lr` (the published optimiser of the rates never moves them).
    inner_as_outer: L_e is taken on the edited prompt itself, not on a rephrasing (EasyEdit): nothing is learnt about
        other wordings.
    shifted_locality: of a neighbour the KL is read one token late (EasyEdit): where the answer's first token is
        predicted it is not read, behind the last one it is.
    unspaced_target: labels are the target's ids without the space before it, aligned to its end (EasyEdit's
        CounterFact): the network learns to edit towards words that are glued to the prompt.
    """

    lr: float = Field(gt=0)
    lr_lr: float = Field(gt=0)
    cedit: float = Field(ge=0)
    cloc: float = Field(ge=0)
    max_iters: int = Field(gt=0)
    val_interval: int = Field(gt=0)
    early_stop_patience: int = Field(gt=0)
    batch_size: int = Field(default=1, gt=0)
    accumulate_bs: int = Field(default=10, gt=0)
    val_steps: int = Field(default=100, gt=0)
    grad_clip: float = Field(default=100.0, gt=0)
    final_lr: float = Field(default=1.0, gt=0, le=1)
    training_seed: int = 0
    rates_at_lr: bool = False
    inner_as_outer: bool = False
    shifted_locality: bool = False
    unspaced_target: bool = False


@dataclass(frozen=True)
class Loss:
    """Means over edits, in nats."""

    # The weighted sum.
    total: Tensor
    # L_e.
    edit: float
    # The KL.
    locality: float


class Training:
    """A network, its optimiser, and how far they are. `best` is the network of the lowest validation loss so far."""

    def __init__(
        self,
        handle: ModelHandle,
        sites: Sequence[Site],
        shape: HypernetShape,
        settings: TrainingHparams,
        lessons: Lessons,
    ) -> None:
        self.handle, self.sites, self.settings, self.lessons = handle, tuple(sites), settings, lessons
        self.net = Hypernet(sites, shape, settings.training_seed).to(handle.device)
        networks = [tensor for name, tensor in self.net.named_parameters() if name != "rates"]
        rate = settings.lr if settings.rates_at_lr else settings.lr_lr
        self._peaks = (settings.lr, rate)
        self._optimiser = torch.optim.Adam([{"params": networks}, {"params": [self.net.rates]}], lr=settings.lr)
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self._best_loss, self._best_step = math.inf, 0

    @property
    def steps(self) -> int:
        """Of the optimiser, in all."""
        return max(1, self.settings.max_iters // self.settings.accumulate_bs)

    def run(self, progress: Progress, keep: TrainingCheckpoint) -> Hypernet:
        """Train from where it stands to the end; returns the best network. Raises EditorError when there is none."""
        per_step = self.settings.accumulate_bs
        validate_every = max(1, self.settings.val_interval // per_step)
        with progress.task(f"MEND of {self.handle.name}", self.steps - self.step) as task:
            while self.step < self.steps and not self._gave_up():
                self._train(task)
                if self.step % validate_every == 0 or self.step == self.steps:
                    self._validate()
                if self.step % keep.every == 0:
                    keep.write(self.state())
        if not self.best:
            raise EditorError(
                f"training MEND on {self.handle.name} never reached a finite validation loss in {self.step} steps. "
                "Try a smaller lr, lr_lr or edit_lr."
            )
        self.net.load_state_dict(self.best)
        return self.net.eval()

    def loss(self, lessons: Sequence[Lesson], *, training: bool) -> Loss:
        """Of several edits, `batch_size` lessons each. In training their tokens are added to the statistics first."""
        taught = _Taught(self.handle, lessons, self.settings)
        found = collect(self.handle, self.sites, taught.inner, taught.inner.nll)
        if training:
            self.net.observe(found.tokens)
        with torch.no_grad():
            before = [reading.scores(self.handle) for reading in taught.locality]
        with gradients.only(self.handle.model), torch.set_grad_enabled(training):
            factors = self.net(found.tokens)

            def after(reading: TokenReading) -> Tensor:
                with changed(self.handle, self.sites, factors, found.owners, reading.edits):
                    return reading.scores(self.handle)

            edit = taught.outer.nll(after(taught.outer)).mean()
            pairs = zip(taught.locality, before, strict=True)
            apart = [reading.divergence(was, after(reading)).mean() for reading, was in pairs]
            locality = torch.stack(apart).mean()
            total = self.settings.cedit * edit + self.settings.cloc * locality
            return Loss(total, edit.item(), locality.item())

    def state(self) -> dict[str, Tensor]:
        """Everything that the rest of the training depends on."""
        tensors = {f"net.{name}": tensor.detach() for name, tensor in self.net.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for i, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": tensor for name, tensor in moments.items()}
        # Before the first validation there is no loss yet, and a store keeps nothing that is not finite.
        counted = [self.step, self._best_step, *([self._best_loss] if self.best else [])]
        return {**tensors, "counted": torch.tensor(counted, dtype=torch.float64)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        step, best_step, *lowest = tensors["counted"].tolist()
        self.step, self._best_step = int(step), int(best_step)
        self._best_loss = lowest[0] if lowest else math.inf
        self.net.load_state_dict(_below("net.", tensors))
        self.best = {name: tensor.to(self.handle.device) for name, tensor in _below("best.", tensors).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("adam.", tensors).items():
            number, _, what = name.partition(".")
            moments.setdefault(int(number), {})[what] = tensor
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})

    def _train(self, task: Task) -> None:
        settings = self.settings
        done = self.step / self.steps
        share = settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        count = settings.accumulate_bs * settings.batch_size
        first = self.step * count
        seed = settings.training_seed
        loss = self.loss([self.lessons.draw(f"{seed}:{first + i}") for i in range(count)], training=True)
        parameters = list(self.net.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss.total, parameters), strict=True):
            parameter.grad = slope
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        if torch.isfinite(norm):  # as published: a step that would write NaN is left out
            self._optimiser.step()
        self._optimiser.zero_grad()
        self.step += 1
        task.step(f"edit loss {loss.edit:.3f}, locality {loss.locality:.4f}")

    def _validate(self) -> None:
        """Keep the network if it is the best so far."""
        settings = self.settings
        size = settings.accumulate_bs * settings.batch_size
        drawn = [
            self.lessons.draw(f"{settings.training_seed}:{i}", validation=True)
            for i in range(max(1, settings.val_steps // settings.accumulate_bs) * size)
        ]
        losses = [self.loss(drawn[i : i + size], training=False).total.item() for i in range(0, len(drawn), size)]
        mean = math.fsum(losses) / len(losses)
        if mean < self._best_loss:
            self._best_loss, self._best_step = mean, self.step
            self.best = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}

    def _gave_up(self) -> bool:
        return (self.step - self._best_step) * self.settings.accumulate_bs > self.settings.early_stop_patience


class TrainingCheckpoint(Protocol):
    """Where a training that may be interrupted is kept, every so many steps."""

    @property
    def every(self) -> int:
        """Steps between two writings."""
        ...

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state, in place of the one before."""
        ...


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the artifact store, safetensors with a sha256 of every tensor."""

    artifacts: ArtifactStore
    key: ArtifactKey
    every: int

    def read(self) -> dict[str, Tensor] | None:
        """What was kept last, or None."""
        return self.artifacts.get(self.key)

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Replace the file in one step."""
        self.artifacts.put(self.key, state)

    def remove(self) -> None:
        """When the training is finished."""
        self.artifacts.discard(self.key)


class _Taught:
    """The batches of some lessons: the edits, their rephrasings, and what must not change (long texts apart)."""

    def __init__(self, handle: ModelHandle, lessons: Sequence[Lesson], settings: TrainingHparams) -> None:
        inner, outer, neighbours, texts = [], [], [], []
        for i, lesson in enumerate(lessons):
            edit, target = i // settings.batch_size, lesson.request.target_new
            spaced = not settings.unspaced_target
            own = row_of_target(handle, edit, lesson.request.filled, target, spaced=spaced)
            inner.append(own)
            if not settings.inner_as_outer:
                own = row_of_target(handle, edit, lesson.rephrasing, target, spaced=spaced)
            outer.append(own)
            late = settings.shifted_locality
            neighbours += [row_of_neighbour(handle, edit, n.prompt, n.answer, late=late) for n in lesson.neighbours]
            texts += [row_of_text(handle, edit, text) for text in lesson.texts]
        self.inner, self.outer = TokenReading.of(handle, inner), TokenReading.of(handle, outer)
        self.locality = [TokenReading.of(handle, rows) for rows in (neighbours, texts) if rows]


def row_of_target(handle: ModelHandle, edit: int, prompt: str, target: str, *, spaced: bool = True) -> TokenRow:
    """A prompt with its target; the target's tokens are read. Not `spaced`: see `unspaced_target`."""
    head, tail = handle.ids(prompt), handle.target_ids(target, prompt)
    labels = tail if spaced else handle.ids(target.strip(), special=False)
    ids = [*head, *tail[:-1]]
    first = max(0, len(ids) - len(labels))
    return TokenRow(edit, tuple(ids), tuple(range(first, len(ids))), tuple(labels[-(len(ids) - first) :]))


def row_of_neighbour(handle: ModelHandle, edit: int, prompt: str, answer: str, *, late: bool = False) -> TokenRow:
    """A prompt with an answer; where the answer's tokens are predicted is read (one token later if `late`).

    Without an answer the end of the prompt is read.
    """
    head = handle.ids(prompt)
    tail = handle.target_ids(answer, prompt) if answer.strip() else []
    ids = [*head, *tail] if late else [*head, *tail[:-1]]
    count = max(1, len(tail))
    return TokenRow(edit, tuple(ids), tuple(range(len(ids) - count, len(ids))), (0,) * count)


def row_of_text(handle: ModelHandle, edit: int, text: str) -> TokenRow:
    """An ordinary text, every token of which is read."""
    ids = handle.ids(text)[:TEXT_TOKENS]
    return TokenRow(edit, tuple(ids), tuple(range(len(ids))), (0,) * len(ids))


def _below(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
