"""The cache of keys and values in a call of a transformers model, whatever that release calls it.

transformers 5.24 renamed the argument, and the field of the output, `past_key_values` to `cache`; 5.40 is to drop the
old name, and models with code of their own keep it. This file is the only one that knows either.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

NAMES = ("cache", "past_key_values")  # transformers 5.24 and later; before


def keyword(module: nn.Module) -> str:
    """Under which name this module's `forward` takes a cache."""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[1])


def given(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments of a call; None when there is none."""
    return next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)


def returned(output: Any) -> Any:
    """The cache in a model's output; None when there is none.

    Where a family could look at an encoder, too, that of its own attention: gpt_bigcode of transformers 4 gives both.
    """
    fields = set(output.keys()) if isinstance(output, Mapping) else set()  # asking for the old name may warn
    cache = next((output[name] for name in NAMES if name in fields), None)
    return getattr(cache, "self_attention_cache", cache)


def takes_one(module: nn.Module) -> bool:
    """Whether this module's `forward` says that it takes a cache; under which name cannot be guessed."""
    return not inspect.signature(module.forward).parameters.keys().isdisjoint(NAMES)


def takes_places(module: nn.Module) -> bool:
    """Whether this module's `forward` takes position ids; else it counts tokens of the mask by itself."""
    return "position_ids" in inspect.signature(module.forward).parameters
