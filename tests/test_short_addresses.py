"""Editors' files live with their authors and import us by short addresses: those stay, wherever the rooms move."""

from importlib import import_module

import pytest

import editsafety

ADDRESSES = {
    "editsafety": ("Edit", "EditRequest", "Editor", "Hparams", "LowRank", "Replace", "Sidecar", "Traits"),
    "editsafety.edit": ("Delta", "Edit", "LowRank", "Replace", "Sidecar"),
    "editsafety.editors": ("Editor", "Traits"),
    "editsafety.trace": ("Seen", "watch"),
}


@pytest.mark.parametrize(("module", "names"), ADDRESSES.items(), ids=list(ADDRESSES))
def test_an_editors_file_finds_what_it_imports(module: str, names: tuple[str, ...]) -> None:
    here = import_module(module)
    assert [name for name in names if not hasattr(here, name)] == []


def test_the_short_addresses_give_the_rooms_own_objects() -> None:
    edit, trace = import_module("editsafety.edit"), import_module("editsafety.trace")
    assert edit.Sidecar is editsafety.Sidecar is import_module("editsafety.edits.edit").Sidecar
    assert trace.watch is import_module("editsafety.model.trace").watch
