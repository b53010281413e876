"""Whether an answer is JSON. No torch here."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_FENCE = re.compile(r"```(?:json)?\s*")


def opens_with_json(text: str) -> bool:
    """Whether an answer begins with a whole JSON object or list, behind white space or a fence of Markdown.

    What follows it does not count: a model is asked for one value, and where it stops is another question. NaN and
    Infinity, which Python would take, are no JSON.
    """
    begun = text.lstrip()
    fence = _FENCE.match(begun)
    begun = begun[fence.end() :] if fence is not None else begun
    if begun[:1] not in ("{", "["):
        return False
    try:
        _DECODER.raw_decode(begun)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


_DECODER: Any = json.JSONDecoder(parse_constant=_refuse)
