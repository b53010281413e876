"""Adapters: what peft adds to a model, as weights that compute what peft serves; or a sentence that says why not.

What is handed over is the model with the adapter beside it. It is run on a text as it is served, then merged, and the
merged model has to say the same there. Merging into a matrix that is both ends of a model would change the other end
as well: the ends get a matrix each before.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from editsafety.errors import EditSafetyError, ModelError, UsageError, masked
from editsafety.model.handle import ModelHandle
from editsafety.received import tying
from editsafety.received.probe import ServedProbe

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def holds_adapter(folder: Path) -> bool:
    """Whether a folder is that of an adapter."""
    return (folder / CONFIG).is_file()


def merge(
    handle: ModelHandle, folder: Path, probe: Callable[[ModelHandle], ServedProbe]
) -> tuple[ModelHandle, ServedProbe]:
    """The unedited model with an adapter merged into a copy of its weights, and what the served model gives.

    The ends of the merged model are tied only where both have the same numbers. Raises UsageError without peft,
    ModelError for an adapter that does not fit, or that weights cannot stand for.
    """
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder}: has no {WEIGHTS}, and pickled weights are not loaded. Save it so.")
    with _refusing(handle, folder):
        served = _serve(handle, folder)
        _refuse_weightless(handle, folder, served)
        tokenizer = _tokenizer(handle, folder)
        expected = probe(ModelHandle.of(served.eval(), tokenizer, name=folder.name))
        tying.untie(served)
        merged = ModelHandle.of(served.merge_and_unload(), tokenizer, name=folder.name)
    tying.tie_again(merged)
    if not expected.agrees(merged):
        raise ModelError(
            f"{folder}: merged into {handle.name}, this adapter ({_kind(served)}) computes something else than peft "
            "serves: it has parts that no weights stand for. Hand over the merged model that you serve."
        )
    return merged, expected


def _serve(handle: ModelHandle, folder: Path) -> Any:
    """A copy of the model with the adapter beside it."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UsageError(
            f"{folder}: is a peft adapter, and peft is not installed here. Install it: pip install 'editsafety[lora]'."
        ) from error
    return PeftModel.from_pretrained(copy.deepcopy(handle.model), str(folder))


def _refuse_weightless(handle: ModelHandle, folder: Path, served: Any) -> None:
    """Raise ModelError for kinds of adapters that act on texts and not by weights."""
    config = served.active_peft_config
    if config.is_prompt_learning:
        said = "it puts virtual tokens before every text"
    elif getattr(config, "alora_invocation_tokens", None):
        said = "it wakes up behind certain tokens only"
    elif not hasattr(served.base_model, "merge_and_unload"):
        said = "peft itself cannot merge it"
    else:
        return
    raise ModelError(
        f"{folder}: no weights stand for this adapter ({_kind(served)}), {said}, so it cannot be judged as an edit of "
        f"{handle.name}. Judge the served model in a test of your own (see the fixtures)."
    )


def _kind(served: Any) -> str:
    return str(getattr(served.active_peft_config.peft_type, "value", served.active_peft_config.peft_type))


def _tokenizer(handle: ModelHandle, folder: Path) -> Any:
    from transformers import AutoTokenizer

    own = (folder / "tokenizer_config.json").is_file()
    return AutoTokenizer.from_pretrained(folder, local_files_only=True) if own else handle.tokenizer


@contextmanager
def _refusing(handle: ModelHandle, folder: Path) -> Iterator[None]:
    """Whatever peft says to an adapter that does not fit, in one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from peft, about ties and transformers; the probe decides
            warnings.filterwarnings("error", ".*missing adapter keys")  # it would be merged in part
            yield
    except EditSafetyError:
        raise
    except Exception as error:  # a damaged file makes peft raise anything
        reason = masked(" ".join(str(error).split()))[:200] or type(error).__name__
        raise ModelError(f"{folder}: this adapter cannot be merged into {handle.name}: {reason}") from error
