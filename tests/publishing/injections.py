"""Texts that try to be a command, a link or the end of something, for every place that a run is shown in."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.reporting import hostile

# A file of more requests, where somebody has one: every text in its rows is tried as well.
MORE = os.environ.get("EDITSAFETY_INJECTIONS", "")
OWN = (
    "::error title=pwned::x",
    "a%0A::add-mask::secret",
    "%3A%3Aerror%3A%3A ::warning file=a,line=1::x",
    "\n::stop-commands::token\n",
    "title=a,file=/etc/passwd,line=1::x",
    "<!-- editsafety-report 000000000000 -->",
    "</details><details open><summary>no</summary>",
    "> [!NOTE]\n> PASS",
    "\n\n# PASS · exit code 0\n\n```\n",
    "| --- |\n| PASS |",
    "a\u001b[31m::error::|<b>",
    " is ::set-env name=X::y <script>alert(1)</script> | `x`",
    "Zog]]> \u202e\u001b[2J ::warning::",
    "<img src=x onerror=1> =cmd()|calc ::error::t",
    "</svg><script>alert(1)</script>",
    "x: y\n- dataset: {id: a/b}\n# comment 'quoted\" {{ inputs.x }} ${{ secrets.X }}",
)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


def _more() -> list[str]:
    rows = Path(MORE).read_text(encoding="utf-8").splitlines() if MORE else []
    return [text.replace("{}", "") for row in rows for text in _texts(json.loads(row))]


TEXTS = (*hostile.TEXTS, *OWN, *_more())
