"""ModelHandle: a causal language model with its tokenizer, and the questions that editors and measures ask of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from editsafety import tensor_files
from editsafety.errors import ModelError
from editsafety.model import finder, first_calls, kv_cache, loading, placement, room, tokens
from editsafety.model.architectures import Architecture, Part, has_row, refuse_quantised
from editsafety.model.chat import ChatTemplate
from editsafety.model.engine import Engine
from editsafety.model.loading import ModelSpec
from editsafety.model.sites import Layout, Site
from editsafety.model.tokens import Spelled

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows, on the model's device."""

    # Token ids, `[batch, seq]`.
    ids: Tensor
    # 1 for a token and 0 for padding, `[batch, seq]`.
    mask: Tensor

    @property
    def lengths(self) -> list[int]:
        """Real tokens per row."""
        return [int(n) for n in self.mask.sum(1)]


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of a model gave."""

    # `[batch, seq, vocab]`; None where they were left out.
    logits: Any
    # The keys and values, where they were asked for.
    cache: Any = None


class ModelHandle:
    """A model in evaluation mode, its tokenizer, its architecture and its fingerprint when it was taken over."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: ModelSpec) -> None:
        first_calls.settle()
        loaded: Any = model
        self.model: PreTrainedModel = loaded.eval()
        self.tokenizer = tokenizer
        self.spec = spec
        _refuse_odd_memory(self.model, self.name)
        refuse_quantised(model.config)
        self.chat = ChatTemplate.of(tokenizer, self.name) if spec.chat else None
        self._architecture, self._unknown = _architecture(self.model)
        self.identity = self.fingerprint()
        self.spelling = tokens.identity(tokenizer)  # the same weights behind other tokens give other figures
        self.dropped: tuple[str, ...] = ()  # tensors of its checkpoint that the model has no place for
        self.reloadable = False  # only what `load` found under a name can be loaded again
        self.open_sessions = 0  # sessions around it, one in another
        self.engine = Engine()  # what shortcuts remember of it, and whether they may be taken

    @classmethod
    def load(cls, spec: ModelSpec | str, tokenizer: PreTrainedTokenizerBase | None = None) -> Self:
        """Load by name; `tokenizer` is taken where the source has none of its own.

        Raises ModelError (not available) or UsageError (not a valid name).
        """
        spec = ModelSpec(spec) if isinstance(spec, str) else spec
        devices = loading.devices_of(spec)
        spec = room.settled(spec, devices)
        loaded = loading.load(spec, tokenizer)
        placed = spec.device_map is not None or placement.is_spread(loaded.model)
        handle = cls(loaded.model if placed else loaded.model.to(devices[0]), loaded.tokenizer, spec)
        handle.reloadable, handle.dropped = True, loaded.dropped
        return handle

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, chat: bool = False) -> Self:
        """Take over a model that is already in memory. Only its mode is touched (evaluation)."""
        dtype = str(model.dtype).removeprefix("torch.")
        return cls(model, tokenizer, ModelSpec(name, str(model.device), dtype, chat=chat))

    def announcements(self, asked: ModelSpec) -> list[str]:
        """What is said once of how it was loaded, where that was a choice: its dtype, its devices."""
        said = (room.announcement(asked, self.spec, self.devices), placement.announcement(self.model, self.name))
        return [one for one in said if one is not None]

    @property
    def architecture(self) -> Architecture:
        """The row of its family, or what was found in the model itself.

        Raises ModelError for a family whose parts are not known: only who asks for the parts of a block needs them.
        """
        return self._architecture or Architecture.of(self.model.config, self._unknown)

    @property
    def kind(self) -> str:
        """Its family, as transformers configs name it."""
        return str(self.model.config.model_type)

    @property
    def has_row(self) -> bool:
        """Whether the parts of its blocks are known."""
        return self._architecture is not None

    @property
    def name(self) -> str:
        """The slug of the model, as used in ids."""
        return self.spec.slug

    @property
    def device(self) -> torch.device:
        """Where token ids have to be."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Those that hold its weights, the one where token ids have to be first."""
        return tuple(dict.fromkeys((self.device, *placement.devices_in(self.model))))

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def context(self) -> int:
        """The longest text, in tokens, that the model takes."""
        config = self.model.config.get_text_config()
        told = [getattr(config, name, None) for name in ("max_position_embeddings", "seq_length")]
        return next((int(one) for one in told if one and one > 0), 2048)  # -1: as long as you like (XLNet)

    def block(self, layer: int) -> str:
        """Module name of a decoder block. Raises ModelError for a layer the model does not have."""
        if not 0 <= layer < self.layers:
            raise ModelError(f"{self.name} has layers 0 to {self.layers - 1}; layer {layer} was asked for.")
        return self.architecture.block_of(layer)

    def sites(self, part: Part, layer: int) -> tuple[Site, ...]:
        """The projections of one part of a block. Raises ModelError when a module is not a plain matrix."""
        self.block(layer)
        return tuple(self.site(name) for name in self.architecture.modules(part, layer))

    def mlp_out(self, layer: int) -> Site:
        """The MLP's down-projection: the matrix that ROME and its relatives edit."""
        return self.sites(Part.MLP_OUT, layer)[0]

    def site(self, name: str) -> Site:
        """The weight of one projection module. Raises ModelError when there is none, or it is not a plain matrix."""
        from transformers.pytorch_utils import Conv1D

        try:
            module = self.model.get_submodule(name)
        except AttributeError as error:
            raise ModelError(f"{self.name} has no module {name!r}; its architecture row may be wrong.") from error
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or not weight.is_floating_point():
            found = "no weight" if weight is None else f"{tuple(weight.shape)} of {weight.dtype}"
            raise ModelError(f"{name} of {self.name} is no plain matrix ({found}). Load an unquantised checkpoint.")
        if weight.is_meta:
            raise ModelError(f"{name} of {self.name} is on the meta device: load its weights before editing.")
        if isinstance(module, Conv1D):
            return Site(name, Layout.IN_OUT, weight.shape[1], weight.shape[0])
        if isinstance(module, nn.Linear):
            return Site(name, Layout.OUT_IN, weight.shape[0], weight.shape[1])
        raise ModelError(f"{name} of {self.name} is a {type(module).__name__}; known are nn.Linear and Conv1D.")

    def weight(self, site: Site) -> Tensor:
        """The weight of a site as it is now, seen as `[d_out, d_in]`."""
        return site.canonical(self.model.get_parameter(site.parameter).detach())

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; with `special`, behind what the tokenizer puts in front (a BOS on Llama, nothing on GPT-2).

        Where the text begins with that already, it is not put there a second time.
        """
        return tokens.spell(self.tokenizer, text, special=special)

    def spell_out(self, text: str) -> Spelled:
        """The ids of a text, and the characters that each stands for."""
        return tokens.spell_out(self.tokenizer, text)

    def gap(self, prompt: str) -> str:
        """What stands between a prompt and its answer: a space, or nothing behind white space or a special token."""
        return tokens.gap(self.tokenizer, prompt)

    def target_ids(self, target: str, behind: str = "") -> list[int]:
        """Ids of `target` as it continues the prompt `behind`: a space before it or not (see `gap`), no special tokens.

        Raises ModelError when nothing is left, or nothing but spaces and special tokens (a word that the tokenizer does
        not know).
        """
        ids = tokens.follow(self.tokenizer, target, behind)
        if not ids or not self.text(ids).strip():
            raise ModelError(f"the tokenizer of {self.name} turns target {target!r} into no text at all (ids {ids}).")
        return ids

    def write_before(self, text: str, prompt: str) -> str:
        """The prompt behind a text; a BOS that the prompt begins with stays in first place.

        Of a prompt inside the chat template the text comes before the message, into the user's turn.
        """
        inside = self.chat.write_before(text, prompt) if self.chat is not None else None
        return tokens.write_before(self.tokenizer, text, prompt) if inside is None else inside

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Pad rows on the right by ourselves: no setting of the tokenizer is read or changed.

        Raises ModelError for a row that is longer than the model's context, or when there is no token at all.
        """
        width = max((len(row) for row in rows), default=0)
        if width == 0:
            raise ModelError(f"{self.name} was given no token at all. Leave empty texts out.")
        if width > self.context:
            raise ModelError(f"a text of {width} tokens; {self.name} takes {self.context}. Shorten it or leave it out.")
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        return Batch(ids.to(self.device), mask.to(self.device))

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits, float32 `[batch, seq, vocab]`."""
        return torch.as_tensor(self.run(batch.ids, batch.mask).logits).float()

    def run(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        cache: Any = None,
        keep: bool = False,
        body: bool = False,
        places: Tensor | None = None,
    ) -> Ran:
        """Run ids `[batch, seq]` behind the tokens in `cache`, if any; `mask` `[batch, seen + seq]` covers them all.

        With `keep` the keys and values are handed back, in `cache` itself when one was given. `body` leaves the
        unembedding out: there are no logits then. `places` are position ids `[batch, seq]`, for models that take any.
        """
        more: dict[str, Any] = {}
        if places is not None:  # a copy: XGLM of transformers 4 adds its offset into what it is given, in one piece
            more["position_ids"] = places.clone(memory_format=torch.contiguous_format)
        model: Any = self.model.base_model if body else self.model
        if cache is not None:
            more[kv_cache.keyword(model)] = cache
        output = model(input_ids=ids, attention_mask=mask, use_cache=keep or cache is not None, **more)
        return Ran(None if body else output.logits, kv_cache.returned(output))

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter (tied ones once) and buffer by name."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def fingerprint(self) -> str:
        """sha256 over names, dtypes, shapes and bytes of every parameter and saved buffer, as they are now.

        Buffers that a checkpoint does not hold (causal masks, rotary tables) are left out: they follow from the config
        and come and go between versions of transformers. `Seal` watches them too.
        """
        saved = self.model.state_dict().keys()
        prints = {name: tensor_files.digest(tensor) for name, tensor in self.tensors().items() if name in saved}
        return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def _architecture(model: Any) -> tuple[Architecture | None, str]:
    """The row of a model's family, else its parts as far as they prove themselves on the model; or why they do not."""
    try:
        return (Architecture.of(model.config) if has_row(model.config) else finder.find(model)), ""
    except ModelError:
        return None, ""  # whoever asks for it is told why
    except finder.NotFoundError as error:
        return None, str(error)


def _refuse_odd_memory(model: nn.Module, name: str) -> None:
    """Raise ModelError for weights that are not in memory, and for two that lie in the same place.

    An edit of one of those would be lost in the other, or be undone in one of them only. Tied weights are one parameter
    under two names, and parts of one long tensor do not overlap: both are fine.
    """
    if (module := placement.offloaded_module(model)) is not None:
        raise ModelError(
            f"{module} of {name} is offloaded: accelerate brings its weights in for a pass and takes them away again, "
            "so an edit cannot be written into them. Give it more devices, or a smaller --dtype."
        )
    ends: dict[int, list[tuple[int, int, str]]] = {}
    for parameter, weight in model.named_parameters():
        if weight.is_meta:
            raise ModelError(
                f"{parameter} of {name} is on the meta device (not loaded, or offloaded): an edit cannot be written "
                "into a weight that is not there. Load the whole model into memory: a smaller --dtype needs less, "
                "and --device-map auto takes several cards."
            )
        if weight.numel() and weight.is_contiguous():
            start = weight.data_ptr()
            end = start + weight.numel() * weight.element_size()
            ends.setdefault(weight.untyped_storage().data_ptr(), []).append((start, end, parameter))
    for places in ends.values():
        places.sort()
        for (_, end, one), (start, _, other) in pairwise(places):
            if start < end:
                raise ModelError(
                    f"{one} and {other} of {name} are two parameters in the same memory. Tie them (the same "
                    "nn.Parameter under both names), or give each its own copy."
                )
