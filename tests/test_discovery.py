"""Discovery: one new file is one new member; a name that is not known says which are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from editsafety import discovery
from editsafety.errors import UnknownNameError, UsageError
from editsafety.source_files import sources_of


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family `editsafety.gadgets` with two members, in a folder of its own."""
    package = tmp_path / "gadgets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "lamp.py").write_text("GADGET = 'the lamp'\n")
    (package / "_shared.py").write_text("raise RuntimeError('nobody asked for me')\n")
    import editsafety

    monkeypatch.setitem(discovery.MEMBER, "gadgets", "GADGET")
    monkeypatch.setattr(editsafety, "__path__", [*editsafety.__path__, str(tmp_path)])
    yield package
    for name in [name for name in sys.modules if name.startswith("editsafety.gadgets")]:
        del sys.modules[name]
    vars(editsafety).pop("gadgets", None)


def test_a_file_dropped_into_a_family_is_a_member_the_moment_it_is_there(family: Path) -> None:
    assert discovery.names("gadgets") == ["lamp"]
    (family / "clock.py").write_text("GADGET = 'the clock'\n")
    assert discovery.names("gadgets") == ["clock", "lamp"]
    assert discovery.load("gadgets", "clock") == "the clock"


def test_listing_imports_no_member(family: Path) -> None:
    (family / "bomb.py").write_text("raise RuntimeError('imported')\nGADGET = None\n")
    assert discovery.names("gadgets") == ["bomb", "lamp"]
    assert "editsafety.gadgets.lamp" not in sys.modules


def test_loading_one_member_imports_no_other(family: Path) -> None:
    (family / "bomb.py").write_text("raise RuntimeError('imported')\nGADGET = None\n")
    assert discovery.load("gadgets", "lamp") == "the lamp"


def test_a_member_may_be_a_folder_and_may_annotate_what_it_is(family: Path) -> None:
    (family / "organ").mkdir()
    (family / "organ" / "__init__.py").write_text("GADGET: str = 'the organ'\n")
    (family / "organ" / "pipe.py").write_text("GADGET = 'a pipe'\n")
    assert discovery.names("gadgets") == ["lamp", "organ"]
    assert discovery.load("gadgets", "organ") == "the organ"


def test_an_unknown_name_is_refused_with_the_nearest_and_the_known_ones(family: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"no gadget named 'lmap'; did you mean 'lamp'\? Known gadgets: lamp\. One of"
    ):
        discovery.load("gadgets", "lmap")
    with pytest.raises(UnknownNameError, match=r"no gadget named 'zzz'\. Known gadgets: lamp\."):
        discovery.load("gadgets", "zzz")
    with pytest.raises(UnknownNameError):
        discovery.load("gadgets", "_shared")


def test_a_file_that_does_not_say_what_it_is_is_no_member_and_refused_by_file(family: Path) -> None:
    (family / "blank.py").write_text("from editsafety.gadgets.lamp import GADGET\n")
    assert discovery.names("gadgets") == ["lamp"]
    with pytest.raises(UsageError, match=r"editsafety/gadgets/blank.py does not define GADGET"):
        discovery.load("gadgets", "blank")


def test_entry_points_of_other_packages_are_members(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("radio", "json:dumps", "editsafety.gadgets"),
        EntryPoint("ghost", "no_such:thing", "editsafety.gadgets"),
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "editsafety.gadgets"
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(discovery, "entry_points", entry_points)
    assert discovery.names("gadgets") == ["ghost", "lamp", "radio"]
    assert discovery.load("gadgets", "radio").__name__ == "dumps"
    with pytest.raises(UsageError, match="ghost: the entry point 'no_such:thing' cannot be loaded"):
        discovery.load("gadgets", "ghost")


def test_a_class_in_a_file_of_ones_own_is_loaded(tmp_path: Path) -> None:
    place = tmp_path / "with space" / "mine.py"
    place.parent.mkdir()
    place.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Mine:\n    size: int = 3\n"
    )
    assert discovery.load("gadgets", f"{place}:Mine")().size == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class Other: pass\n", r"has no 'Mine'\. Classes in it: Other"),
        ("from pathlib import Path\n", r"has no 'Mine'\. Classes in it: none"),
        ("class Mine\n", "fails while being imported: SyntaxError"),
        ("import no_such_module\n", "fails while being imported: ModuleNotFoundError"),
        ("1 / 0\n", "fails while being imported: ZeroDivisionError"),
    ],
)
def test_a_file_of_ones_own_that_does_not_do_is_refused_with_the_reason(
    tmp_path: Path, body: str, message: str
) -> None:
    place = tmp_path / "mine.py"
    place.write_text(body)
    with pytest.raises(UsageError, match=message) as caught:
        discovery.load("gadgets", f"{place}:Mine")
    assert str(place) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        discovery.load("gadgets", f"{tmp_path}/no.py:Mine")


@pytest.mark.parametrize("family", discovery.MEMBER)
def test_the_members_of_the_shipped_families_are_listed_sorted(family: str) -> None:
    members = discovery.names(family)
    assert members == sorted(members)
    assert all(name.isidentifier() and not name.startswith("_") for name in members)


class Package:
    """What an entry point says of the package that it is of."""

    name, version = "their-gadgets", "1.2"


def installed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(discovery, "entry_points", entry_points)


def point(name: str, value: str, group: str = "editsafety.gadgets") -> EntryPoint:
    return EntryPoint(name, value, group)._for(Package())  # type: ignore[attr-defined, no-any-return]


def test_a_name_that_is_taken_here_is_refused_from_elsewhere(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, point("lamp", "json:dumps"))
    taken = r"'lamp' is taken by editsafety itself and by their-gadgets 1\.2 \(json:dumps\)"
    for use in (discovery.load, discovery.expect):
        with pytest.raises(UsageError, match=taken):
            use("gadgets", "lamp")


def test_a_name_of_two_packages_is_refused_with_both(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, point("radio", "json:dumps"), point("radio", "json:loads"))
    with pytest.raises(UsageError, match=r"json:dumps.*json:loads"):
        discovery.load("gadgets", "radio")


def test_a_package_that_is_on_the_path_twice_is_one(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, point("radio", "json:dumps"), point("radio", "json:dumps"))
    assert discovery.load("gadgets", "radio").__name__ == "dumps"


def test_where_a_member_comes_from_can_be_said(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, point("radio", "json:dumps"), point("clock", "time:time", "editsafety.measures"))
    assert discovery.origin("gadgets", "lamp") == discovery.OURS
    assert discovery.origin("gadgets", "radio") == "their-gadgets 1.2 (json:dumps)"
    assert discovery.origin("gadgets", "my/own.py:Lamp") == "my/own.py:Lamp"
    assert discovery.plugins() == {
        "gadgets: radio": "their-gadgets 1.2 (json:dumps)",
        "measures: clock": "their-gadgets 1.2 (time:time)",
    }


def test_a_file_that_imports_its_neighbours_is_loaded_as_a_part_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "published_method"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text("SIZE = 3\n")
    (package / "main.py").write_text("from .numbers import SIZE\n\n\ndef edit(model, tok, requests): return SIZE\n")
    edit = discovery.from_file(f"{package / 'main.py'}:edit")
    assert (edit.__module__, edit(None, None, None)) == ("published_method.main", 3)
    (tmp_path / "util").mkdir()
    (tmp_path / "util" / "nethook.py").touch()
    (tmp_path / "elsewhere.py").touch()
    (package / "numbers.py").write_text("from util import nethook\nimport elsewhere, os\nSIZE = 3\n")
    names = [str(file.relative_to(tmp_path)) for file in sources_of(package / "main.py")]
    in_package = [f"published_method/{name}.py" for name in ("__init__", "main", "numbers")]
    assert names == [*in_package, "util/nethook.py", "elsewhere.py"]  # what can change what it does
    assert sources_of(package / "numbers.py") == (package / "numbers.py",)
    (package / "broken.py").write_text("from .nowhere import SIZE\n")
    with pytest.raises(UsageError, match=r"broken\.py: fails while being imported: .*nowhere"):
        discovery.from_file(f"{package / 'broken.py'}:edit")
    with pytest.raises(UsageError, match=r"main\.py: has no 'rewrite'"):
        discovery.from_file(f"{package / 'main.py'}:rewrite")
