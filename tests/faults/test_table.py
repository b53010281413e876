"""docs/reliability.md: every fault of its table has tests, and they exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.system.commands import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
NAMED = sorted({name for *_, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)})


def test_the_table_has_every_fault_once_and_each_names_what_happens_and_a_test():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 46))
    assert all(re.findall(r"`[\w/]+\.py::\w+`", tests) for *_, tests in ROWS)


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_exists(name):
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert f"test_{function}" in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
