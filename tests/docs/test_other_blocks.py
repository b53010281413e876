"""Blocks that nobody types: what a run shows, the drawings of the tour, and what the site is built from."""

from __future__ import annotations

import importlib
import re

from tests.docs.code_blocks import BLOCKS, PAGES, blocks_of
from tests.system.commands import ROOT
from tests.test_layers import LAYERS


def test_every_block_without_a_language_is_tried_here():
    assert [block.page for block in BLOCKS if not block.language] == ["README.md", "docs/tour.md", "docs/tour.md"]


def test_the_layers_of_the_tour_are_those_that_the_tests_hold_the_package_to():
    _, drawn = blocks_of("", "docs/tour.md")
    assert [sorted(row.split()) for row in drawn.text.splitlines()] == [sorted(layer) for layer in reversed(LAYERS)]


def test_the_rooms_on_the_way_of_a_request_are_there():
    drawn, _ = blocks_of("", "docs/tour.md")
    rooms = re.findall(r"^[ │]*(\w+)/ ", drawn.text, re.MULTILINE)
    assert "lab" in rooms
    assert [room for room in rooms if not (ROOT / room).is_dir() and not (ROOT / "editsafety" / room).is_dir()] == []


def test_every_page_is_in_one_list_of_the_site():
    listed = [
        name
        for block in blocks_of("{toctree}")
        for name in block.text.splitlines()
        if name and not name.startswith(":")
    ]
    pages = {page.stem for page in PAGES if page.parent.name == "docs"} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_what_the_reference_is_made_of_is_there():
    seen = 0
    for block in blocks_of("{eval-rst}"):
        for kind, name, options in re.findall(r"^\.\. auto(\w+):: (\S+)\n((?:   .+\n?)*)", block.text, re.MULTILINE):
            found = named(name) if kind != "module" else importlib.import_module(name)
            for member in re.findall(r":members: (.+)", options):
                assert [one for one in member.split(", ") if not hasattr(found, one)] == [], name
            seen += 1
    assert seen == sum(block.text.count("\n.. auto") + block.text.startswith(".. auto") for block in BLOCKS)


def named(path: str) -> object:
    """What a dotted name stands for."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
