"""IKE: the fact is told to the model, in front of every text, behind demonstrations of what to do with such a fact.

    New Fact: {another prompt} {its target}        a demonstration: the question is the fact itself (copy),
    Prompt: {question} {answer}                    its rephrasing (update), or a neighbour's (retain)
    ...
    New Fact: {prompt} {target}
    Prompt: {the text that the model is asked}

An edited model is a function from text to logits, and so is a model with this in front of its input: the sidecar puts
the ids there and takes their logits away, and no measure knows of it. No weight changes. The facts of a sequence are
told one below the other; one that is told again replaces the old.

`select: facts` is the paper's way (Zheng et al., section 3): the k facts nearest to the new one, one line each, copy :
update : retain as 1 : 3 : 4, shuffled, the nearest last. `select: lines` is EasyEdit's: the k nearest lines, whatever
their kind, the nearest first.

Where we differ from the published code:
- nearness is the cosine of words weighted by their rarity (TF-IDF), not of sentences embedded by a second network,
  so that nothing has to be fetched;
- a demonstration about the edited subject and relation, or one that asks what the request asks (a rephrasing, a
  neighbour), is never shown: it would give the answer away. The paper also shows the new fact as a demonstration of
  itself; we do not, nor does EasyEdit;
- the text is not joined with the prefix before it is split into tokens, because a measure has its ids already. Where
  words begin with a space, that space is a token of its own;
- special tokens stay first: a BOS is not repeated, the prefix goes behind it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from editsafety import datasets
from editsafety.datasets.alike import with_neighbours
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.editors._root_sidecar import Asked, RootSidecar, leading
from editsafety.edits.edit import Edit, Sidecar
from editsafety.errors import EditError, EditorError
from editsafety.hyperparameters import Hparams, Published
from editsafety.model.handle import ModelHandle

END = "Prompt:"
IGNORED = -100  # transformers' label of a token that is not scored


class IkeHparams(Hparams):
    """Hyperparameters of IKE. `k` demonstrations are taken from the requests of the data set `demonstrations`."""

    k: int = Field(ge=0)
    demonstrations: str
    select: Literal["lines", "facts"]
    retriever: Literal["words"] = "words"

    shipped_data: ClassVar[Mapping[str, Any]] = {"demonstrations": "english/pool"}
    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {"k": (0.5, 2)}
    published: ClassVar[Published] = Published(
        aside={"sentence_model_name": "demonstrations are found by their words"},
        only={"use_icl_examples": (True,)},
        completed=True,
        like="gpt2-xl",
    )


@dataclass(eq=False)
class Prefix(RootSidecar[Tensor]):
    """Ids `[m]` in front of every text. `bos` is the id that stays before them; `context` the longest text in all.

    What is kept beside a cache is where the prefix stands in each row, `[batch]`: behind left padding and BOS.
    Logits and hidden states are those of the text alone; attentions show the prefix.
    """

    kind: ClassVar[str] = "ike"
    prefix: Tensor
    bos: int | None
    context: int

    def asks(self, asked: Asked, memory: Tensor | None) -> tuple[dict[str, Any], Tensor]:
        """The call with the prefix in its ids, mask, positions and labels; behind a cache, in the mask and positions.

        Raises EditError when prefix and text are longer than the model's context.
        """
        by_name, length = dict(asked.by_name), len(self.prefix)
        text = asked.ids.shape[1] + max(asked.seen - length, 0)
        if length + text > self.context:
            raise EditError(
                f"ike puts {length} tokens in front of a text of {text}: {length + text} together, the model takes "
                f"{self.context}. Shorten the text, or take fewer demonstrations (k)."
            )
        if by_name.get("token_type_ids") is not None:
            raise EditError("ike does not know which token types its prefix should have; leave token_type_ids out.")
        places = self._places(asked) if memory is None else memory
        by_name.pop("cache_position", None)  # counts without the prefix; every model counts by itself
        if asked.mask is not None:
            by_name["attention_mask"] = _insert(asked.mask, places, self.prefix.new_ones(length))
        if memory is not None:
            if by_name.get("position_ids") is not None:
                by_name["position_ids"] = by_name["position_ids"] + length
            return by_name, places
        by_name["input_ids"] = _insert(asked.ids, places, self.prefix)
        if by_name.pop("position_ids", None) is not None and asked.mask is not None:
            mask = by_name["attention_mask"]
            by_name["position_ids"] = (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 1)
        if isinstance(by_name.get("logits_to_keep"), Tensor):
            by_name["logits_to_keep"] = by_name["logits_to_keep"] + length
        if by_name.get("labels") is not None:
            labels = by_name["labels"].clone()
            labels[:, 0] = IGNORED  # nothing predicts the first token of a text
            by_name["labels"] = _insert(labels, places, torch.full_like(self.prefix, IGNORED))
        return by_name, places

    def answers(self, module: nn.Module, asked: Asked, memory: Tensor, output: Any) -> None:
        """Take away the logits of the prefix. A BOS predicts what its last token does."""
        if asked.seen:
            return
        width, length = asked.ids.shape[1], len(self.prefix)
        if tuple(output.logits.shape[:2]) == (len(asked.ids), width + length):
            output.logits = output.logits[:, length:]
        elif asked.by_name.get("logits_to_keep") is None:
            raise EditError(
                "ike found logits at chosen positions: whoever chose them inside the model does not know of the prefix."
            )
        else:
            output.logits = output.logits[:, -width:]
        if getattr(output, "hidden_states", None) is not None:
            output.hidden_states = tuple(states[:, length:] for states in output.hidden_states)

    def _places(self, asked: Asked) -> Tensor:
        padding = leading(asked.mask, asked.ids)
        if self.bos is None:
            return padding
        first = asked.ids.gather(1, padding.clamp(max=asked.ids.shape[1] - 1)[:, None])[:, 0]
        return padding + (first == self.bos).long()

    def tensors(self) -> Mapping[str, Tensor]:
        """Prefix"""
        return {"prefix": self.prefix}

    def settings(self) -> Mapping[str, Any]:
        """lineage, bos and context"""
        return {"lineage": self.lineage, "bos": self.bos, "context": self.context}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""
        return cls(target, settings["lineage"], tensors["prefix"], settings["bos"], settings["context"])


class Ike(Editor):
    """IKE as an editor."""

    Hparams = IkeHparams
    hparams: IkeHparams
    sidecars: ClassVar[Mapping[str, type[Sidecar]]] = {Prefix.kind: Prefix}
    traits: ClassVar[Traits] = Traits(
        batch=True,
        changes="sidecar",
        paper="Can We Edit Factual Knowledge by In-Context Learning?, arXiv 2305.12740",
        reference="https://github.com/zjunlp/EasyEdit, easyeditor/models/ike at 14cea82",
    )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """A prefix with demonstrations for `requests` and every fact told so far. `carry` holds the facts as text.

        Notes: demonstrations, facts, prefix_tokens. Raises EditorError when the prefix alone fills the context.
        """
        self.refuse_none(requests)
        generator = self.generator(requests[0])
        lineage = carry["lineage"] if carry else torch.randint(2**62, (1,), generator=generator)
        facts = dict(json.loads(bytes(carry["facts"].tolist()))) if carry else {}
        for request in requests:
            facts.pop(request.filled, None)  # told again, it is told last
            facts[request.filled] = request.target_new.strip()
        shown = self._demonstrations(requests, facts, generator)
        told = [f"New Fact: {_told(self.handle, *fact)}\n" for fact in facts.items()]
        text = "".join([*shown, *told, END])
        ids = _open_ended(self.handle, text)
        if len(ids) >= self.handle.context:
            raise EditorError(
                f"{len(shown)} demonstrations and {len(facts)} facts are {len(ids)} tokens; {self.handle.name} takes "
                f"{self.handle.context}, the text included. Take fewer demonstrations (k) or facts."
            )
        car = Prefix("", int(lineage), torch.tensor(ids), _first_special(self.handle), self.handle.context)
        stored = torch.tensor(list(json.dumps(list(facts.items())).encode()), dtype=torch.uint8)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            sidecars=(car,),
            notes={"demonstrations": len(shown), "facts": len(facts), "prefix_tokens": len(ids)},
            carry={"facts": stored, "lineage": lineage},
        )

    def _demonstrations(
        self, requests: Sequence[EditRequest], facts: Mapping[str, str], generator: torch.Generator
    ) -> list[str]:
        """The chosen demonstrations, in the order in which they are shown; none of them about a fact that is told."""
        settings = self.hparams
        if settings.k == 0:
            return []
        taken = {(request.subject, request.relation or request.prompt) for request in requests}
        asked = {*facts, *(text for request in requests for text in _questions(request))}
        supply = [
            other
            for other in with_neighbours(datasets.requests(settings.demonstrations))
            if (other.subject, other.relation or other.prompt) not in taken and other.filled not in asked
        ]
        handle = self.handle
        queries = [f"New Fact: {_fact(handle, request)}\nPrompt: {request.filled}\n\n" for request in requests]
        if settings.select == "lines":
            lines = [_line(handle, other, *pair) for other in supply for pair in _pairs(other, asked).values()]
            return [lines[at] for at in nearest(queries, lines, settings.k)]
        asked_for, known = ([_fact(handle, one) for one in some] for some in (requests, supply))
        chosen = [supply[at] for at in nearest(asked_for, known, settings.k)]
        kinds = ["copy"] * round(len(chosen) / 8) + ["update"] * round(len(chosen) * 3 / 8)
        kinds += ["retain"] * (len(chosen) - len(kinds))
        shown = []
        for other, place in zip(chosen, torch.randperm(len(chosen), generator=generator).tolist(), strict=True):
            pairs = _pairs(other, asked)
            shown.append(_line(handle, other, *pairs.get(kinds[place], pairs["copy"])))
        return shown[::-1]


def nearest(queries: Sequence[str], texts: Sequence[str], k: int) -> list[int]:
    """The `k` texts that are nearest to any of the queries, the nearest first, ties in their order.

    Cosine of bags of words; a word weighs log((1 + n) / (1 + texts that have it)) + 1.
    """
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in (*queries, *texts)]
    spread = Counter(word for bag in bags[len(queries) :] for word in bag)
    weighted = []
    for bag in bags:
        weights = {word: n * (math.log((1 + len(texts)) / (1 + spread[word])) + 1) for word, n in bag.items()}
        norm = math.sqrt(math.fsum(weight**2 for weight in weights.values())) or 1.0
        weighted.append({word: weight / norm for word, weight in weights.items()})
    asked, known = weighted[: len(queries)], weighted[len(queries) :]
    near = [max(math.fsum(w * query.get(word, 0.0) for word, w in bag.items()) for query in asked) for bag in known]
    return sorted(range(len(texts)), key=lambda at: (-round(near[at], 9), at))[:k]  # rounded, so that ties are ties


def _told(handle: ModelHandle, prompt: str, answer: str) -> str:
    return prompt + handle.gap(prompt) + answer.strip()


def _fact(handle: ModelHandle, request: EditRequest) -> str:
    return _told(handle, request.filled, request.target_new)


def _pairs(request: EditRequest, asked: Collection[str]) -> dict[str, tuple[str, str]]:
    """Question and answer of a request's demonstrations by kind, where it has them: the first that is not `asked`."""
    found = [("update", text, request.target_new) for text in request.rephrasings]
    found += [("retain", other.prompt, other.answer) for other in request.neighbours if other.answer]
    pairs = {"copy": (request.filled, request.target_new)}
    for kind, question, answer in found:
        if question not in asked:
            pairs.setdefault(kind, (question, answer))
    return pairs


def _line(handle: ModelHandle, request: EditRequest, question: str, answer: str) -> str:
    return f"New Fact: {_fact(handle, request)}\nPrompt: {_told(handle, question, answer)}\n\n"


def _questions(request: EditRequest) -> list[str]:
    """Everything that a request may be measured by."""
    return [request.filled, *request.rephrasings, *(other.prompt for other in request.neighbours)]


def _open_ended(handle: ModelHandle, text: str) -> list[int]:
    """Ids of `text`, without special tokens, such that another text's ids behind them begin a word of their own."""
    bare = handle.ids(text, special=False)
    joined = handle.text([*bare, *handle.ids("x", special=False)])
    return bare if joined.endswith(" x") else handle.ids(f"{text} ", special=False)


def _first_special(handle: ModelHandle) -> int | None:
    """The id that the tokenizer puts in front of a text by itself (a BOS); None when it puts none."""
    with_, without = handle.ids("x"), handle.ids("x", special=False)
    return with_[0] if with_ != without and with_[0] in handle.tokenizer.all_special_ids else None


def _insert(rows: Tensor, places: Tensor, middle: Tensor) -> Tensor:
    """`rows` `[batch, seq]` with `middle` `[m]` written into row i at column `places[i]`: `[batch, seq + m]`."""
    length = len(middle)
    columns = torch.arange(rows.shape[1] + length, device=rows.device)[None]
    places = places.to(rows.device)[:, None]
    kept = torch.where(columns < places, columns, columns - length).clamp(0, rows.shape[1] - 1)
    inside = (columns >= places) & (columns < places + length)
    written = middle.to(rows)[(columns - places).clamp(0, length - 1)]
    return torch.where(inside, written, rows.gather(1, kept))


EDITOR = Ike
