"""Where a function comes from: what libraries do to themselves is told from what an editor does by that."""

from __future__ import annotations

import sys
from typing import Any


def is_from(function: Any, *modules: str) -> bool:
    """Whether the code of a function stands in the file of one of these modules; what is no function has none."""
    code = getattr(function, "__code__", None)
    files = [getattr(sys.modules.get(name), "__file__", None) for name in modules]
    return code is not None and code.co_filename in files
