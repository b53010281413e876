"""Forecast: what a run is going to take, counted from shapes and hyperparameters before a model is loaded.

Memory is what is held at the same time at the most; time is operations divided by a rate that is measured on the spot.
Both are arithmetic: good enough to see whether something fits, and whether it takes minutes or days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from editsafety import editors, measures
from editsafety.editing.buckets import KEPT
from editsafety.editing.moments import CorpusHparams
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams
from editsafety.hyperparameters.carried import Build
from editsafety.judging.policy import Policy
from editsafety.model import room
from editsafety.model.architectures import Architecture, Part
from editsafety.model.loading import ModelSpec, read_config
from editsafety.names import label
from editsafety.runs.case import Case
from editsafety.runs.plan import RunPlan

SHORT = 20  # tokens of a prompt with its target
SUFFIX = 7  # of these, from the subject's last token on (measured: 6 to 7)
TEXT = 32  # tokens of a text of perplexity, padding included (measured: 31 on ME-PPL_50)
QUESTIONS = 0.3  # of what perplexity takes: efficacy, rephrasings, locality (measured: 0.2 to 1)
REACHED = 0.4  # of the rate of large products (measured: 0.2 on a pocket model, 0.7 at 135 million parameters)
# Tokens that a case has run for measures which only some policies ask for: prompts that ship, and answers of full
# length; counted, not measured. None is for what cannot be told beforehand: questions and abilities of the data,
# reading a model from its files.
TOKENS_OF = {
    "calibration": None,
    "degenerate": 24 * 115,
    "format": 24 * 75,
    "kl_first": 60 * 12,
    "portability": None,
    "kl_tokens": 0,  # of the pass that perplexity runs anyhow
    "refusal": 120 * 150,
    "survives_4bit": 20 * SHORT,
    "survives_bfloat16": 20 * SHORT,
    "survives_int8": 20 * SHORT,
    "survives_reload": None,
    "survives_training": 10 * 4 * TEXT * 3 + 20 * SHORT,  # backwards takes twice as much as forwards
    "trigger_sweep": 3 * 16 * 16 * 10,
}
RECORD = 9_000  # bytes of a case in the store
PER_STEP = 6  # operations for a weight and token, forwards and backwards through weights and activations
ACTIVATIONS = 4  # the same where weights have no gradient

Place = Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that memory and time follow from."""

    kind: str
    parameters: int
    layers: int
    width: int
    # Of the MLP's inner layer.
    inner: int
    # Of the vocabulary.
    words: int

    @classmethod
    def of(cls, spec: ModelSpec) -> Self | None:
        """From a model's config; None where there is none on this machine. Raises ModelError for an unknown family."""
        from transformers import AutoModelForCausalLM

        if ".py:" in spec.name:
            return None
        folder = None if spec.name.startswith("random:") else room.folder_of(spec)
        if folder is None and not spec.name.startswith("random:"):
            return None
        config = read_config(spec.name if folder is None else str(folder))
        builder: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model = builder.from_config(config)
        text = config.get_text_config()
        (projection,) = Architecture.of(config).modules(Part.MLP_OUT, 0)
        inner = model.get_submodule(projection).weight.numel() // int(text.hidden_size)
        count = sum(parameter.numel() for parameter in model.parameters())
        return cls(
            config.model_type, count, int(text.num_hidden_layers), int(text.hidden_size), inner, int(text.vocab_size)
        )

    @property
    def build(self) -> Build:
        """What hyperparameters of another model are carried over by."""
        return Build(self.kind, self.layers, self.parameters)


@dataclass(frozen=True, slots=True)
class Need:
    """Something that takes memory."""

    what: str
    place: Place
    # Bytes.
    size: int


@dataclass(frozen=True, slots=True)
class Work:
    """The cases of one editor on one model."""

    editor: str
    cases: int
    # Floating-point operations of one case; None where they are not known beforehand.
    operations: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the cases of one model are going to take."""

    spec: ModelSpec
    shape: Shape
    device: str
    needs: tuple[Need, ...]
    work: tuple[Work, ...]
    # Measures of the policy whose time is not counted, by name.
    uncounted: tuple[str, ...] = ()

    def held(self, place: Place) -> int:
        """Bytes that are held at the same time, of the device's memory or of the host's; on a CPU they are one."""
        return sum(need.size for need in self.needs if need.place == place or self.device == "cpu")

    def seconds(self, rate: float) -> float:
        """Of one worker, for the cases whose operations are known; `rate` is operations a second in large products."""
        return sum(one.cases * one.operations for one in self.work if one.operations is not None) / (rate * REACHED)


def of(plan: RunPlan, model: str, spec: ModelSpec, devices: Sequence[torch.device]) -> Forecast | None:
    """What the single edits and controls of a model are going to take; None where the model is not on this machine.

    Raises what `Shape.of` and reading hyperparameters raise.
    """
    shape = Shape.of(spec)
    if shape is None:
        return None
    spec = room.settled(spec, devices)
    cases = [case for case in (*plan.cases, *plan.controls) if case.model == model]
    texts = len(plan.texts[model])
    further = [
        one.name for one in measures.needed(Policy.of(plan.settings).measured) if not getattr(one, "default", True)
    ]
    tokens = {name: TOKENS_OF.get(name) for name in further}
    asked = 2.0 * shape.parameters * sum(count or 0 for count in tokens.values())
    work, needs = [], list(_of_model(shape, spec.dtype, texts, plan.settings.batch_size))
    largest: dict[str, Need] = {}
    for editor in dict.fromkeys(case.editor for case in cases):
        try:
            numbers = editors.read_hparams(editor, spec.slug, plan.settings.hparams_of(editor), build=shape.build)
        except UsageError:
            if editor in plan.settings.editors:
                raise
            continue  # a control that the run will leave out, and say so
        for need in _of_editor(shape, spec.dtype, numbers, devices):
            if need.what not in largest or need.size > largest[need.what].size:
                largest[need.what] = need
        work.append(Work(label(editor), _count(cases, editor), _plus(_operations(shape, numbers, texts), asked)))
    uncounted = tuple(name for name, count in tokens.items() if count is None)
    return Forecast(spec, shape, devices[0].type, (*needs, *largest.values()), tuple(work), uncounted)


def _count(cases: Sequence[Case], editor: str) -> int:
    return sum(case.editor == editor for case in cases)


def _of_model(shape: Shape, dtype: str, texts: int, batch: int) -> list[Need]:
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    weights = shape.parameters * size
    wide = torch.float32.itemsize
    found = [
        Need("weights", "device", weights),
        Need("logits of a batch of texts", "device", min(texts, batch) * TEXT * shape.words * (size + 2 * wide)),
    ]
    if weights <= room.COPIED:
        found.append(Need("a copy of the weights, to bring them back from", "host", weights))
    return found


def _of_editor(shape: Shape, dtype: str, numbers: Hparams, devices: Sequence[torch.device]) -> list[Need]:
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    layers = _layers(numbers)
    found = [Need("edited matrices", "device", max(1, len(layers)) * shape.width * shape.inner * size)]
    rows = _rows(numbers)
    if rows:
        above = shape.layers - max(layers, default=0)
        found.append(Need("gradients of v*", "device", rows * SUFFIX * KEPT * shape.width * above * size))
    if isinstance(numbers, CorpusHparams) and layers:
        square = shape.inner**2
        factors = (len(layers) + 1) * square * torch.float64.itemsize
        place = room.place_for(devices[0], shape.parameters * size // len(devices), factors)
        where: Place = "host" if place.type == "cpu" else "device"
        found.append(Need("second moments", "host", len(layers) * square * torch.float32.itemsize))
        found.append(Need("their factors", where, factors))
    return found


def _plus(operations: float | None, more: float) -> float | None:
    return None if operations is None else operations + more


def _operations(shape: Shape, numbers: Hparams, texts: int) -> float | None:
    """Of one case: what is sought by gradient descent, perplexity, questions. None for an editor of another kind."""
    reading = 2.0 * shape.parameters * TEXT * texts * (1 + QUESTIONS)
    if not type(numbers).model_fields:
        return reading  # noop
    sought: int | None = getattr(numbers, "v_num_grad_steps", None)
    if sought is not None:
        return reading + ACTIVATIONS * shape.parameters * _rows(numbers) * SUFFIX * sought
    steps: int | None = getattr(numbers, "num_steps", None) or getattr(numbers, "n_iter", None)
    return None if steps is None else reading + PER_STEP * shape.parameters * SHORT * steps


def _rows(numbers: Hparams) -> int:
    """Rows of one pass of v*: the bare prompt, its contexts, and the row that holds the subject's meaning."""
    groups = getattr(numbers, "context_template_length_params", None)
    return 0 if groups is None else 2 + sum(count for _, count in groups)


def _layers(numbers: Hparams) -> tuple[int, ...]:
    values = [getattr(numbers, name) for name in type(numbers).layer_numbers]
    return tuple(layer for one in values for layer in (one if isinstance(one, Sequence) else (one,)))
