"""SERAC: a memory of facts beside the model, a network that finds what is asked for, and one that answers from it.

The model itself never changes. At every position of a text the scope network compares the text so far with the stored
prompts; where it asks for one, the answer network says what comes next, given the fact and the text. Everywhere else
the logits are the model's own, bit for bit (Mitchell et al., section 3.2: a hard switch at 0.5).

`mixing: soft` is what the published code does whatever its setting says: log((1 - s) P_base + s P_answer) everywhere.

Where we differ from the published code:
- the networks are small ones of our own (`networks`) over the model's vocabulary, trained from nothing by
  `editsafety prepare`, not a DistilBERT and a GPT-2 or Llama-160M that would have to be fetched. The answer network can
  therefore copy an answer, not reason from it;
- the decision is made position by position from what stands before it, not once for a whole batch entry with its
  continuation: the edited model stays a causal language model, says the same at once and token by token, and neither
  padding nor the other rows of a batch matter. While the tokens behind a question are those of the target, the question
  stays open; behind the last one the model goes on;
- the classifier's memory text is the prompt alone. (Theirs cuts the label off at the last space, so that a label of
  several words leaks all but its last.)

Greedy and sampled generation work with and without a cache; beam search reorders a cache unseen and must go without.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editsafety import datasets
from editsafety.artifacts import ArtifactKey
from editsafety.datasets.request import EditRequest
from editsafety.editing.moments import read_texts
from editsafety.editors import Editor, Traits
from editsafety.editors.serac import networks
from editsafety.editors.serac.networks import RECIPE, Net, NetShape
from editsafety.editors.serac.sidecar import NO_TOKEN, Counterfactual, both_nets, sequences
from editsafety.edits.edit import Edit, Sidecar
from editsafety.errors import EditorError, NotPreparedError
from editsafety.hyperparameters import Hparams, Published
from editsafety.progress import Progress

POCKET_TEXTS = 600
JUDGED_TEXTS = 50  # the first of english/texts, on which perplexity is measured
OWN_NETWORKS = "both networks are made and trained from nothing here, with the sizes and numbers that ship"


class SeracHparams(Hparams):
    """Hyperparameters of SERAC.

    `training` is the data set of requests that the networks learn from, without the facts of those in `held_out`.
    `width`, `num_layers` and `num_heads` are the size of both networks.
    """

    training: str
    held_out: tuple[str, ...] = ()
    width: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    mixing: Literal["hard", "soft"] = "hard"
    threshold: float = Field(default=0.5, gt=0, lt=1)  # SERAC, section 3.2

    published: ClassVar[Published] = Published(
        aside={
            **dict.fromkeys(("small_name", "cls_name", "cls_class", "lr", "batch_size"), OWN_NETWORKS),
            **dict.fromkeys(("edit_lr", "lr_lr", "cedit", "cloc", "seed", "grad_clip"), OWN_NETWORKS),
            **dict.fromkeys(("max_iters", "accumulate_bs", "val_steps", "val_interval"), OWN_NETWORKS),
            **dict.fromkeys(("early_stop_patience", "early_stop_key"), OWN_NETWORKS),
        },
        only={
            **dict.fromkeys(("supervised", "soft_weighting", "checkpoint_grad", "cross_attend", "cos"), (False,)),
            **dict.fromkeys(("bound_embeds", "use_all_negatives", "freeze_cntr"), (False,)),
            **dict.fromkeys(("square", "unlikelihood"), (True,)),
            **dict.fromkeys(("freeze", "lora"), (None,)),
            "dist_heads": (1,),
        },
        renamed={"lr": "", "batch_size": ""},
        completed=True,
        like="gpt2-xl",
    )
    shipped_data: ClassVar[Mapping[str, Any]] = {
        "training": "english/pool",
        "held_out": ["english/normal", "hardedit"],
    }
    unsought: ClassVar[str] = "each set of them takes a training of its own"


class Serac(Editor):
    """SERAC as an editor."""

    Hparams = SeracHparams
    hparams: SeracHparams
    sidecars: ClassVar[Mapping[str, type[Sidecar]]] = {Counterfactual.kind: Counterfactual}
    traits: ClassVar[Traits] = Traits(
        batch=True,
        changes="sidecar",
        paper="Memory-Based Model Editing at Scale, arXiv 2206.06520",
        reference="https://github.com/zjunlp/EasyEdit, easyeditor/models/serac at 14cea82",
    )

    @cached_property
    def requests(self) -> tuple[EditRequest, ...]:
        """What the networks learn from: no fact of the held-out data sets."""
        read = partial(datasets.requests, offline=self.handle.spec.offline)
        held = {_about(request) for spec in self.hparams.held_out for request in read(spec)}
        found = [request for request in read(self.hparams.training) if _about(request) not in held]
        if not found:
            raise EditorError(f"{self.name}: every request of {self.hparams.training} is held out; nothing to learn.")
        return tuple(found)

    @property
    def _key(self) -> ArtifactKey:
        settings = self.hparams.model_dump(exclude={"mixing", "threshold", "training", "held_out"})
        data = hashlib.sha256("".join(request.digest() for request in self.requests).encode()).hexdigest()
        return ArtifactKey(
            "serac", self.handle.identity, {**settings, "data": data, "seed": self.seed, "recipe": RECIPE}
        )

    @property
    def _shape(self) -> NetShape:
        words = int(self.handle.model.config.get_text_config().vocab_size)
        return NetShape(words, self.hparams.width, self.hparams.num_layers, self.hparams.num_heads)

    def missing(self) -> str | None:
        """The two trained networks."""
        return "its scope and answer networks" if self.artifacts.get(self._key) is None else None

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Train both networks. `corpus` holds texts that ask for nothing; small world and English data have some."""
        if corpus is None and self.missing() is None:
            return
        settings, progress = self.hparams, progress or Progress.quiet()
        progress.say(
            f"{self.name} on {self.handle.name}: its networks are trained on {len(self.requests)} requests of "
            f"{settings.training}, {settings.num_steps} steps of {settings.batch_size}"
        )
        examples = networks.Examples(self.handle, self.requests, self._texts(corpus), random.Random(self.seed))
        device = self.handle.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            scope, answer, notes = networks.train(
                self._shape,
                examples.draw,
                self.handle,
                steps=settings.num_steps,
                batch_size=settings.batch_size,
                lr=settings.lr,
                progress=progress,
            )
        tensors = {f"scope.{key}": tensor for key, tensor in scope.state_dict().items()}
        tensors |= {f"answer.{key}": tensor for key, tensor in answer.state_dict().items()}
        self.artifacts.put(self._key, tensors, {**notes, "training": settings.training})
        self.__dict__.pop("_networks", None)

    @cached_property
    def _networks(self) -> tuple[Net, Net]:
        found = self.artifacts.get(self._key)
        if found is None:
            raise NotPreparedError(self.name, self.handle.spec.name, "its scope and answer networks")
        return both_nets(self._shape, found)

    def _texts(self, corpus: Path | None) -> Sequence[str]:
        if corpus is not None:
            return read_texts(corpus)
        if self.hparams.training.startswith("english/"):
            return datasets.texts("english/texts")[JUDGED_TEXTS:]
        if not self.handle.spec.name.startswith("pocket-"):
            return ()
        from editsafety.pocket.corpus import covariance_texts

        return covariance_texts(self.seed, POCKET_TEXTS)

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """A sidecar with both networks and the whole memory, that of `carry` included; a prompt that is stored again
        replaces the old.

        Notes: facts, and the sidecar's `figures`. Raises NotPreparedError.
        """
        self.refuse_none(requests)
        scope, answer = self._networks
        lineage = carry["lineage"] if carry else torch.randint(2**62, (1,), generator=self.generator(requests[0]))
        facts = dict(zip(sequences(carry["prompts"]), sequences(carry["targets"]), strict=True)) if carry else {}
        for request in requests:
            prompt = tuple(self.handle.ids(request.filled))
            facts.pop(prompt, None)
            facts[prompt] = tuple(self.handle.target_ids(request.target_new, request.filled))
        prompts, targets = (networks.padded(rows, NO_TOKEN) for rows in (list(facts), list(facts.values())))
        mixing, threshold = self.hparams.mixing, self.hparams.threshold
        car = Counterfactual("", int(lineage), scope, answer, prompts, targets, mixing, threshold)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            sidecars=(car,),
            notes={"facts": len(facts), **car.figures()},
            carry={"prompts": prompts, "targets": targets, "lineage": lineage},
        )


def _about(request: EditRequest) -> tuple[str, str]:
    return request.subject, request.relation or request.prompt


EDITOR = Serac
