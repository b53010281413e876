"""Which model to load and how, and loading it: shipped, from a folder or the hub, from a function, or random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from editsafety import discovery
from editsafety.errors import EditSafetyError, ModelError, UsageError, masked, sentence_of
from editsafety.model import hub, placement, shards
from editsafety.model.saved_folders import why_no_model
from editsafety.names import slug
from editsafety.shipped import shipped

# One of these is in every folder that holds a tokenizer.
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "source.spm", "tekken.json",
)  # fmt: skip
SAMPLE = "a 1 é 中"  # no tokenizer makes nothing of all of it
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


class LoadingOptions(Protocol):
    """How models are to be loaded, whatever their names: options of a command or of a run."""

    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str | None: ...  # noqa: D102
    @property
    def offline(self) -> bool: ...  # noqa: D102
    @property
    def trust_remote_code(self) -> bool: ...  # noqa: D102
    @property
    def device_map(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model to load and how."""

    # `pocket-...`, `random:<config>`, a local folder, a hub id, or `path.py:function` for a function without arguments
    # that returns (model, tokenizer).
    name: str
    # "auto", or what torch calls it.
    device: str = "auto"
    # In which weights are loaded; "auto" is settled by what fits (`room.settled`) before anything is loaded.
    dtype: str = "float32"
    # Of a hub model.
    revision: str | None = None
    # Whether only files that are here already may be used.
    offline: bool = False
    # Whether a model may bring code of its own.
    trust_remote_code: bool = False
    # Whether requests are put to it through the chat template of its tokenizer.
    chat: bool = False
    # How it is spread over devices: "auto" and its kind, or {module: device} as JSON or in a file; then `device` is not
    # asked. None: all of it is on one device.
    device_map: str | None = None

    @classmethod
    def asked(cls, name: str, how: LoadingOptions, *, chat: bool = False) -> Self:
        """The model of that name, loaded as was asked for."""
        return cls(
            name,
            device=how.device,
            dtype=how.dtype,
            revision=how.revision,
            offline=how.offline,
            trust_remote_code=how.trust_remote_code,
            chat=chat,
            device_map=how.device_map,
        )

    @property
    def slug(self) -> str:
        """A short name for ids, files and hparams: the last part of the path, lower case."""
        return slug(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What was loaded: on the CPU, or where its device map sends it."""

    model: Any
    tokenizer: Any
    # Names of tensors in the checkpoint for which the model has no place: they are not in it, whatever they are for.
    dropped: tuple[str, ...] = ()


def load(spec: ModelSpec, tokenizer: Any = None) -> Loaded:
    """Model and tokenizer. `tokenizer` is taken where the source has none of its own.

    Raises ModelError (not available, or no tokenizer) or UsageError (no such name or dtype).
    """
    if spec.dtype not in DTYPES:
        raise UsageError(f"dtype {spec.dtype!r} is not one of auto, {', '.join(DTYPES)}.")
    if ".py:" not in spec.name and not spec.name.startswith("random:"):
        return _load_pretrained(spec, tokenizer)
    model, own = _call_maker(spec) if ".py:" in spec.name else _build_random(spec)
    if spec.device_map is not None and not placement.is_spread(model):
        model = placement.dispatch(model, placement.lay_out(model, spec.device_map, model.dtype, spec.slug))
    return Loaded(model, own)


def devices_of(spec: ModelSpec) -> tuple[torch.device, ...]:
    """Where a model may be put: on one device, or on those of its device map.

    Raises UsageError for a device that is not here, and for both a device and a map.
    """
    if spec.device_map is None:
        return (pick_device(spec.device),)
    if spec.device != "auto":
        raise UsageError(
            f"device {spec.device!r} and a device map: give one of them. The map says where everything goes."
        )
    return tuple(pick_device(str(device)) for device in placement.devices_of(spec.device_map))


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


def _load_pretrained(spec: ModelSpec, tokenizer: Any) -> Loaded:
    from transformers import AutoModelForCausalLM

    folder = model_folder(spec.name)
    place = str(folder or Path(spec.name).expanduser())
    local = folder is not None or Path(place).is_dir()
    hint = "Give a pocket model, a local folder, random:<config>, or a hub id that can be reached."
    wrong = why_no_model(Path(place))
    if not wrong and not local and spec.name.startswith(("/", ".", "~")):
        wrong = f"there is no such folder. {hint}"
    if wrong:
        raise ModelError(f"cannot load {spec.name!r}: {wrong}")
    if local:
        shards.refuse_damaged(Path(place))
        hint = "Save the model again, or copy all files of its folder."
    away = None if local or spec.offline else hub.cannot_reach()
    if away:
        hint = f"{away}, so only what is on this machine could be taken. {hint}"
    here = local or spec.offline or away is not None
    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code, "local_files_only": here}
    if spec.revision is not None and not local:
        options["revision"] = spec.revision
    dtype = getattr(torch, spec.dtype)
    try:
        with no_bars():
            own = _own_tokenizer(place, local, options, needed=tokenizer is None)
            tokenizer = tokenizer if own is None else own
            loaded: Any = (None, {})
            if tokenizer is not None:
                if spec.device_map is not None:
                    options["device_map"] = _lay_out(place, spec, options)
                # What has another shape is told by name below; transformers would say no more than that something has.
                whole = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True, **options}
                loaded = AutoModelForCausalLM.from_pretrained(place, **whole)
        model, info = loaded
    except EditSafetyError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(
            f"cannot load {spec.name!r}: there is no room for it as {spec.dtype} ({sentence_of(error)}). Take a "
            "smaller --dtype, another --device, or --device-map auto for several cards."
        ) from error
    except Exception as error:  # a damaged file makes transformers and tokenizers raise anything
        said = str(error) if isinstance(error, OSError | RuntimeError | ValueError) else sentence_of(error)
        reason = masked(said.strip().split("\n")[0]) or type(error).__name__
        if "trust_remote_code" in str(error):
            hint = (
                "It runs code from its repository: if you trust it, add --trust-remote-code (the report will say so)."
            )
        raise ModelError(f"cannot load {spec.name!r}: {reason.rstrip('.:')}. {hint}") from error
    if tokenizer is None:
        raise ModelError(
            f"cannot load {spec.name!r}: it holds no tokenizer. Save one beside the model: "
            f"tokenizer.save_pretrained({place!r})."
        )
    shards.refuse_other_shapes(spec.name, info["mismatched_keys"])
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"cannot load {spec.name!r}: the checkpoint lacks {len(missing)} weights (first: {missing[0]}), "
            "which would be filled with random numbers. Make or fetch it again."
        )
    return Loaded(model, tokenizer, tuple(sorted(info["unexpected_keys"])))


def _lay_out(place: str, spec: ModelSpec, options: Mapping[str, Any]) -> placement.Places:
    """Which module goes where, from the config alone: a model that is larger than main memory is never whole in it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    assert spec.device_map is not None
    builder: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(place, **options)
    with torch.device("meta"):
        model = builder.from_config(config, trust_remote_code=spec.trust_remote_code)
    return placement.lay_out(model, spec.device_map, getattr(torch, spec.dtype), spec.slug)


def _own_tokenizer(place: str, local: bool, options: dict[str, Any], *, needed: bool) -> Any:
    """The tokenizer of a folder or a hub id; None where there is none.

    For a folder without one, transformers makes an empty tokenizer of the model's kind, which splits nothing. A few
    tokenizers have a config and no vocabulary; most that have no more than that were not saved whole.
    """
    from transformers import AutoTokenizer

    files = {name for name in (*VOCABULARIES, "tokenizer_config.json") if (Path(place) / name).is_file()}
    if local and not files:
        return None
    try:
        made = AutoTokenizer.from_pretrained(place, **options)
    except (ImportError, OSError, ValueError) as error:  # transformers 4 asks for protobuf where there is nothing
        if local and files == {"tokenizer_config.json"} and "trust_remote_code" not in str(error):
            return None
        if local or needed or not isinstance(error, OSError):
            raise
        return None  # the hub has none; where it cannot be reached, the model will say so
    return made if made(SAMPLE, add_special_tokens=False)["input_ids"] else None


def _call_maker(spec: ModelSpec) -> tuple[Any, Any]:
    """What a user's function returns; its dtype and everything else is the function's business."""
    try:
        made = discovery.from_file(spec.name)()
    except EditSafetyError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise ModelError(f"{spec.name} failed: {sentence_of(error)}. It has to return (model, tokenizer).") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ModelError(f"{spec.name} returned {type(made).__name__}, expected a tuple (model, tokenizer).")
    return made


def size_of_random(name: str) -> int:
    """How many parameters the model behind `random:<config>` has, without making it.

    Raises UsageError for a shape that there is not, ModelError for a config that cannot be read.
    """
    from transformers import AutoModelForCausalLM

    builder: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = builder.from_config(read_config(name))
    return sum(parameter.numel() for parameter in model.parameters())


def read_config(name: str) -> Any:
    """The config of `random:<config>`, a built-in shape or a folder or file with a config.json, or of a model's folder.

    Raises UsageError for a shape that there is not, ModelError for a config that cannot be read.
    """
    from transformers import AutoConfig

    shape = name.removeprefix("random:")
    if name.startswith("random:") and shape in RANDOM_CONFIGS:
        kind, overrides = RANDOM_CONFIGS[shape]
        return AutoConfig.for_model(kind, **overrides)
    if not Path(shape).exists():
        known = ", ".join(RANDOM_CONFIGS)
        raise UsageError(f"{name}: neither a built-in shape ({known}) nor a config file that exists.")
    try:
        return AutoConfig.from_pretrained(shape)
    except Exception as error:  # a damaged file makes transformers raise anything
        reason = sentence_of(error).partition("\n")[0]
        raise ModelError(f"{name}: its config cannot be read ({reason}).") from error


def _build_random(spec: ModelSpec) -> tuple[Any, Any]:
    """A model with random weights (seed 0)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    builder: Any = AutoModelForCausalLM
    name = spec.name.removeprefix("random:")
    path, config = Path(name), read_config(spec.name)
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
