"""MEND: a trained network turns the gradient of the edit loss into the edit.

One forward and one backward pass over the requests give, per token of the edited matrices, the input x and the gradient
g; the network (see `editing/hypernet.py`) makes x' and g' of them, and W changes by rate * sum of g' x'^T: low-rank
data, one column per token. Several requests in a call form one batch. `prepare` trains the network, which takes long
and needs requests with rephrasings and neighbours (see `editing/mend_training.py`); for a shipped model it is shipped.

"Fast Model Editing at Scale", ICLR 2022 (arXiv 2110.11309). Where we differ from the published code: prompt and target
are joined as ids; no [PAD] token is added; the network is used in evaluation mode and with each matrix's own rate. The
published behaviour in these respects can be had by options, see `MendHparams`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editsafety import hyperparameters
from editsafety.artifacts import ArtifactKey
from editsafety.datasets import fetch
from editsafety.datasets.alike import with_neighbours
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.editors.mend.lessons import FileLessons, Lessons, PocketLessons
from editsafety.editors.mend.network import Hypernet, HypernetShape
from editsafety.editors.mend.token_gradients import Collected, TokenReading, collect
from editsafety.editors.mend.training import StoredCheckpoint, Training, TrainingHparams, row_of_target
from editsafety.edits.edit import Edit, LowRank
from editsafety.errors import EditorError, NotPreparedError, UsageError
from editsafety.hyperparameters import Published
from editsafety.model.architectures import Part
from editsafety.model.sites import Site
from editsafety.progress import Progress

VERSION = 1  # of everything that decides a trained network and is not a hyperparameter
TOLD = "training is told by prepare, and by the numbers here"
BY_USER = "prepared by the user"
USUAL = "zsre_3k"  # MEND, section 5.1: edits of zsRE; these rows can be fetched
SHIPPED = "english/pool"


class MendHparams(TrainingHparams):
    """Hyperparameters of MEND, named as in the published configurations.

    layers, parts: the edited matrices (`inner_params`): of every layer its parts, in this order. edit_lr: the rate that
    each of them begins training with; the update is added, so a negative one descends. lr_scale: a factor on all rates
    at edit time. training_requests: a data set of requests to train on (see `editsafety data`); empty for what
    `prepare --corpus` was given, else the small world of a pocket model, else `zsre_3k` for a model that numbers ship
    for, and `english/pool`, which need not be fetched, for any other. checkpoint_every: in optimiser steps.

    Three published defects of editing, off by default; those of training are in `TrainingHparams`:
    training_mode_at_edit: the statistics are lost when the trained network is loaded, start again from the tokens of
        the first edit and go on with every further one of a sequence, so that results depend on the order of edits.
    swapped_rates: rates are learnt in the order of `parts` and used in the order in which the model lists its
        parameters: on GPT-2 every matrix gets its partner's rate.
    pad_token_added: the vocabulary has one more word, whose embedding is the mean of all (exact for tied embeddings
        without bias): every probability of the edit loss is a little smaller.
    """

    layers: tuple[int, ...] = Field(min_length=1)
    parts: tuple[Literal["mlp_in", "mlp_out"], ...] = Field(min_length=1)
    rank: int = Field(gt=0)
    n_hidden: int = Field(default=1, ge=0)
    shared: bool = True
    edit_lr: float
    lr_scale: float = 1.0
    training_requests: str = ""
    checkpoint_every: int = Field(default=100, gt=0)
    training_mode_at_edit: bool = False
    swapped_rates: bool = False
    pad_token_added: bool = False

    layer_numbers: ClassVar[tuple[str, ...]] = ("layers",)
    published: ClassVar[Published] = Published(
        aside={
            "hidden_dim": "rank is the width",
            "early_stop_key": "training stops by the loss on what is kept for validation",
            **dict.fromkeys(("counterfact", "zsre", "mini", "n_toks"), TOLD),
        },
        only={
            "one_sided": (False,),
            "x_only": (False,),
            "delta_only": (False,),
            "init": ("id",),
            "norm": (True,),
            "combine": (True,),
            "act": ("relu",),
            "mlp_class": ("IDMLP",),
        },
        renamed={"seed": "training_seed"},
        completed=True,
        like="gpt2-xl",
    )
    unsought: ClassVar[str] = "each set of them takes a training of its own"


# What a trained network does not depend on (the requests are named by their content).
AT_EDIT = frozenset(
    {"lr_scale", "checkpoint_every", "training_requests", "training_mode_at_edit", "swapped_rates", "pad_token_added"}
)


class Mend(Editor):
    """MEND as an editor."""

    Hparams = MendHparams
    hparams: MendHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="Fast Model Editing at Scale, arXiv 2110.11309",
        reference="https://github.com/kmeng01/rome, baselines/mend at 0874014",
    )

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The edited projections, in the order of `layers` and `parts`."""
        settings = self.hparams
        return tuple(
            s for layer in settings.layers for part in settings.parts for s in self.handle.sites(Part(part), layer)
        )

    @cached_property
    def key(self) -> ArtifactKey:
        """Where the network is kept that edits: what a user's requests gave before what is trained without any."""
        if not self._is_open:
            return self._key_of(self._lessons(None).name)
        if self._trained_by_user:
            return self._key_of(BY_USER)
        usual = self._usual
        known = fetch.SOURCES.get(usual)  # named without being fetched
        return self._key_of(f"{usual}, sha256 {known.sha256}" if known else self._lessons(None).name)

    @cached_property
    def _trained_by_user(self) -> bool:
        """Whether a network is there that was trained on requests which a user gave."""
        return self.artifacts.get(self._key_of(BY_USER)) is not None

    @property
    def _is_open(self) -> bool:
        """Whether neither hyperparameters nor a small world say what to train on."""
        return not self.hparams.training_requests and not self._has_world()

    def _key_of(self, lessons: str) -> ArtifactKey:
        settings = self.hparams.model_dump(mode="json", exclude=set(AT_EDIT))
        return ArtifactKey("mend", self.handle.identity, {**settings, "lessons": lessons, "version": VERSION})

    def missing(self) -> str | None:
        """The trained network, unless it is there."""
        return None if self._load_network() else "its trained network"

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Train the network, going on from a checkpoint if there is one; with `corpus` (requests), train it anew.

        Raises DataError when what it is trained on is not here or cannot be used.
        """
        if corpus is None and self._load_network():
            return
        if self.handle.fingerprint() != self.handle.identity:
            raise UsageError(f"{self.handle.name} carries an edit; MEND is trained on the unedited model.")
        lessons = self._lessons(corpus)
        key = self._key_of(BY_USER) if corpus is not None and self._is_open else self.key
        about = {**key.settings, "lessons": lessons.name}
        checkpoint = StoredCheckpoint(
            self.artifacts, ArtifactKey("mend-checkpoint", self.handle.identity, about), self.hparams.checkpoint_every
        )
        training = Training(self.handle, self.sites, self.shape, self.hparams, lessons)
        if (state := checkpoint.read()) is not None:
            training.load(state)
        progress = progress or Progress.quiet()
        progress.say(
            f"{self.name} on {self.handle.name}: a network is trained on {lessons.told}, {training.steps} steps of "
            f"{self.hparams.accumulate_bs * self.hparams.batch_size} edits, fewer where "
            f"{self.hparams.early_stop_patience} edits bring no gain"
        )
        net = training.run(progress, checkpoint)
        self.artifacts.put(key, net.state_dict(), {"trained_on": lessons.name})
        checkpoint.remove()
        for read in ("_net", "key", "_trained_by_user"):
            self.__dict__.pop(read, None)

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """One delta per matrix, a column per token of all requests. Raises NotPreparedError when not trained.

        Notes: nll_before (mean per target token, nats), tokens (of all matrices), update_norm (Frobenius, over all
        matrices), predicted_change (of that nll, to first order: negative when the update descends).
        """
        self.refuse_none(requests)
        net = self._network()
        reading = TokenReading.of(
            self.handle, [row_of_target(self.handle, 0, r.filled, r.target_new) for r in requests]
        )
        loss = reading.nll if not self.hparams.pad_token_added else _Padded(reading).nll
        found = collect(self.handle, self.sites, reading, loss)
        after: dict[str, Tensor] | None = None
        if self.hparams.training_mode_at_edit:
            net, after = _in_training_mode(net, found, carry)
        with torch.no_grad():
            factors = net(found.tokens, self._rates(net) * self.hparams.lr_scale)
        deltas = [LowRank(site, f.left, f.right) for site, f in zip(self.sites, factors, strict=True)]
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=tuple(deltas),
            notes=_notes(found, deltas),
            carry=after,
        )

    @property
    def shape(self) -> HypernetShape:
        """What the network is made with."""
        settings = self.hparams
        return HypernetShape(settings.rank, settings.n_hidden, settings.shared, settings.edit_lr)

    def _network(self) -> Hypernet:
        if not self._load_network():
            raise NotPreparedError(self.name, self.handle.spec.name, "its trained network")
        return self._net

    def _load_network(self) -> bool:
        """Read the network from the store, once."""
        if "_net" not in self.__dict__:
            found = self.artifacts.get(self.key)
            if found is None:
                return False
            net = Hypernet(self.sites, self.shape, self.hparams.training_seed)
            try:
                net.load_state_dict(found)
            except RuntimeError as error:  # says which parameters are missing, too many or of another shape
                said = " ".join(str(error).split())
                raise EditorError(
                    f"the stored network of {self.name} does not fit {self.handle.name}: {said}. "
                    "Delete it from the artifact folder and prepare again."
                ) from error
            self._net = net.to(self.handle.device).eval()
        return True

    def _rates(self, net: Hypernet) -> Tensor:
        """The rate of every site, in the order of `sites`."""
        if not self.hparams.swapped_rates:
            return net.rates
        listed = [name for name, _ in self.handle.model.named_parameters(remove_duplicate=False)]
        order = sorted(range(len(self.sites)), key=lambda i: listed.index(self.sites[i].parameter))
        swapped = torch.empty_like(net.rates)
        swapped[order] = net.rates.detach()
        return swapped

    def _lessons(self, corpus: Path | None) -> Lessons:
        from editsafety import datasets

        spec = str(corpus) if corpus is not None else self.hparams.training_requests
        if not spec and self._has_world():
            return self._pocket
        spec = spec or self._usual
        found = datasets.requests(spec, offline=self.handle.spec.offline)
        return FileLessons(with_neighbours(found), spec)

    @property
    def _usual(self) -> str:
        """What is trained on where nothing says it."""
        return SHIPPED if hyperparameters.find("mend", self.handle.name) is None else USUAL

    @cached_property
    def _pocket(self) -> Lessons:
        return PocketLessons()

    def _has_world(self) -> bool:
        return self.handle.spec.name.startswith(("pocket-", "random:"))


@dataclass(frozen=True, eq=False)
class _Padded:
    """A reading of a model with one more word, the logit of which is the mean of all others."""

    reading: TokenReading

    def nll(self, scores: Tensor) -> Tensor:
        """Like that of the reading."""
        return self.reading.nll(scores - torch.log1p(scores.mean(1, keepdim=True).exp()))


def _in_training_mode(
    net: Hypernet, found: Collected, carry: Mapping[str, Tensor] | None
) -> tuple[Hypernet, dict[str, Tensor]]:
    """A copy of the network with the statistics of this sequence of edits alone, and those statistics."""
    net = copy.deepcopy(net)
    if carry is None:
        net.forget()
    else:
        net.load_statistics(carry)
    net.observe(found.tokens)
    return net, net.statistics()


def _notes(found: Collected, deltas: Sequence[LowRank]) -> dict[str, float | str | bool]:
    squares, change = 0.0, 0.0
    for delta, (x, g) in zip(deltas, found.tokens, strict=True):
        left, right = delta.left, delta.right
        squares += float(((left.T @ left) * (right @ right.T)).sum())
        change += float(((left.T @ g.T) * (right @ x.T)).sum())
    nll = float(found.losses.mean())
    tokens = sum(len(x) for x, _ in found.tokens)
    return {"nll_before": nll, "tokens": tokens, "update_norm": max(squares, 0.0) ** 0.5, "predicted_change": change}


EDITOR = Mend
