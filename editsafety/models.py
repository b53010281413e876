"""ModelHandle: a causal language model with its tokenizer, and the questions that editors and measures ask of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from editsafety import discovery, vault
from editsafety.architectures import Architecture, Part
from editsafety.errors import ModelError, UsageError
from editsafety.names import slug
from editsafety.shipped import shipped
from editsafety.sites import Layout, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")

# Shapes of well-known models, for cost figures without a download: (model_type, overrides of its default config).
RANDOM_CONFIGS: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-medium": ("gpt2", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2-large": ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "gpt2-xl": ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "gpt-j-6b": ("gptj", {}),
    "llama-2-7b": ("llama", {}),
    "llama-3-8b": ("llama", {"intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256}),
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model to load and how.

    `name` is `pocket-...`, `random:<config>`, a local folder, a hub id, or `path.py:function` for a function without
    arguments that returns (model, tokenizer).
    """

    name: str
    device: str = "auto"
    dtype: str = "float32"
    revision: str | None = None
    offline: bool = False
    trust_remote_code: bool = False

    @property
    def slug(self) -> str:
        """A short name for ids, files and hparams: the last part of the path, lower case."""
        return slug(self.name)


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids `[batch, seq]` and their mask, on the model's device."""

    ids: Tensor
    mask: Tensor

    @property
    def lengths(self) -> list[int]:
        """Real tokens per row."""
        return [int(n) for n in self.mask.sum(1)]


class ModelHandle:
    """A model in evaluation mode, its tokenizer, its architecture and its fingerprint when it was taken over."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: ModelSpec) -> None:
        loaded: Any = model
        self.model: PreTrainedModel = loaded.eval()
        self.tokenizer = tokenizer
        self.spec = spec
        self.architecture = Architecture.of(model.config)
        self.identity = self.fingerprint()
        self.reloadable = False  # only what `load` found under a name can be loaded again

    @classmethod
    def load(cls, spec: ModelSpec | str) -> Self:
        """Load by name. Raises ModelError (cannot be had) or UsageError (cannot be meant)."""
        spec = ModelSpec(spec) if isinstance(spec, str) else spec
        if spec.dtype not in DTYPES:
            raise UsageError(f"dtype {spec.dtype!r} is not one of {', '.join(DTYPES)}.")
        device = pick_device(spec.device)
        if ".py:" in spec.name:
            model, tokenizer = _made(spec)
        else:
            model, tokenizer = _random(spec) if spec.name.startswith("random:") else _pretrained(spec)
        handle = cls(model.to(device), tokenizer, spec)
        handle.reloadable = True
        return handle

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str) -> Self:
        """Take over a model that is already in memory. Only its mode is touched (evaluation)."""
        return cls(model, tokenizer, ModelSpec(name, str(model.device), str(model.dtype).removeprefix("torch.")))

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
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "seq_length", None) or 2048)

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
        """Token ids; with `special`, what the tokenizer adds by itself (a BOS on Llama, nothing on GPT-2)."""
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def target_ids(self, target: str) -> list[int]:
        """Ids of `target` as a continuation: one space before it, no special tokens.

        Tokenised behind an anchor word and cut off, which is right for byte-level BPE and for SentencePiece alike
        (the latter would otherwise start with a lone space piece). Raises ModelError when nothing is left,
        or nothing but spaces and special tokens (a word that the tokenizer does not know).
        """
        text = " " + target.strip()
        anchor, joint = self.ids("x", special=False), self.ids("x" + text, special=False)
        ids = joint[len(anchor) :] if joint[: len(anchor)] == anchor else self.ids(text, special=False)
        if not ids or not self.text(ids).strip():
            raise ModelError(f"the tokenizer of {self.name} turns target {target!r} into no text at all (ids {ids}).")
        return ids

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
        output = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        return torch.as_tensor(output.logits).float()

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter (tied ones once) and buffer by name."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def fingerprint(self) -> str:
        """sha256 over names, dtypes, shapes and bytes of every parameter and saved buffer, as they are now.

        Buffers that a checkpoint does not hold (causal masks, rotary tables) are left out: they follow from the config
        and come and go between versions of transformers. `Seal` watches them too.
        """
        saved = self.model.state_dict().keys()
        prints = {name: vault.digest(tensor) for name, tensor in self.tensors().items() if name in saved}
        return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises UsageError for a device that is not here."""
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is not auto, cpu, cuda, cuda:N or mps.") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise UsageError(f"device {name!r} is not available here. Use --device cpu, or auto to take what there is.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: this process sees {torch.cuda.device_count()} GPU(s), counted from 0.")
    return device


def model_folder(name: str) -> Path | None:
    """The shipped folder of a pocket model, or None for any other name. Raises UsageError for an unknown pocket."""
    if not name.startswith("pocket-"):
        return None
    folder = shipped("data") / name
    if (folder / "config.json").is_file():
        return folder
    known = pocket_models()
    raise UsageError(f"no shipped model {name!r}. Shipped: {', '.join(known) or 'none'}.")


def pocket_models() -> list[str]:
    """The names of the shipped models, sorted."""
    return sorted(path.parent.name for path in shipped("data").glob("pocket-*/config.json"))


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal: ours say what matters."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _pretrained(spec: ModelSpec) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(spec.name)
    place = str(folder or Path(spec.name).expanduser())
    local = folder is not None or Path(place).is_dir()
    hint = "Give a pocket model, a local folder, random:<config>, or a hub id that can be reached."
    if not local and spec.name.startswith(("/", ".", "~")):
        raise ModelError(f"cannot load {spec.name!r}: there is no such folder. {hint}")
    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code, "local_files_only": spec.offline or local}
    if spec.revision is not None and not local:
        options["revision"] = spec.revision
    dtype = getattr(torch, spec.dtype)
    try:
        with no_bars():
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, output_loading_info=True, **options)
        model, info = loaded
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        if "trust_remote_code" in str(error):
            hint = (
                "It runs code from its repository: if you trust it, add --trust-remote-code (the report will say so)."
            )
        raise ModelError(f"cannot load {spec.name!r}: {reason} {hint}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"cannot load {spec.name!r}: the checkpoint lacks {len(missing)} weights (first: {missing[0]}), "
            "which would be filled with random numbers. Make or fetch it again."
        )
    return model, tokenizer


def _made(spec: ModelSpec) -> tuple[Any, Any]:
    """What a user's function returns; its dtype and everything else is the function's business."""
    made = discovery.from_file(spec.name)()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ModelError(f"{spec.name} returned {type(made).__name__}, expected a tuple (model, tokenizer).")
    return made


def _random(spec: ModelSpec) -> tuple[Any, Any]:
    """A model with random weights (seed 0) from a built-in shape or a folder or file with a config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    builder: Any = AutoModelForCausalLM
    name = spec.name.removeprefix("random:")
    path = Path(name)
    if name in RANDOM_CONFIGS:
        kind, overrides = RANDOM_CONFIGS[name]
        config = AutoConfig.for_model(kind, **overrides)
    elif path.exists():
        config = AutoConfig.from_pretrained(path)
    else:
        known = ", ".join(RANDOM_CONFIGS)
        raise UsageError(f"random:{name}: neither a built-in shape ({known}) nor a config file that exists.")
    has_tokenizer = (path / "tokenizer_config.json").is_file()
    if not has_tokenizer and not pocket_models():
        raise UsageError(f"random:{name}: no tokenizer beside the config, and no pocket model here to borrow one from.")
    tokenizer = AutoTokenizer.from_pretrained(path if has_tokenizer else model_folder(pocket_models()[0]))
    words = config.get_text_config().vocab_size
    if len(tokenizer) > words:
        raise ModelError(f"random:{name} has {words} words, its tokenizer {len(tokenizer)}. Use a larger one.")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = builder.from_config(config, dtype=getattr(torch, spec.dtype))
    return model, tokenizer
