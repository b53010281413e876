"""Files of settings: whatever is in one, it is a value or a sentence, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editsafety import yaml_files
from editsafety.errors import UsageError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))


def read(folder: Path, content: str | bytes) -> object:
    path = folder / "settings.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return yaml_files.read(path, path.name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 20_000, "more than 30 lists or mappings inside each other .line 1."),
        ("{a: " * 20_000, "more than 30 lists or mappings inside each other"),
        ("".join(f"{' ' * n}a:\n" for n in range(300)), "more than 30 lists or mappings inside each other"),
        (CHAIN, "more than 30 lists or mappings inside each other"),
        (BOMB, "more than 20000 values, with what its aliases repeat .line 5."),
        ("a: &a [*a]\n", "'a' holds itself .line 1."),
        ("a: &a {b: {c: *a}}\n", "'a' holds itself"),
        ("a: *nobody\n", "cannot be read as YAML or JSON: found undefined alias 'nobody'"),
        ("? [a, b]\n: 1\n", "a key is a list, not a name"),
        ("x:\n  ? {y: z}\n  : 1\n", "a key is a mapping, not a name"),
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: !!python/object:collections.Counter {}\n", "could not determine a constructor"),
        ("a: !!int many\n", "a value is not what its tag says"),
        ("a: !!int ''\n", "a value is not what its tag says"),
        ("a: !!bool maybe\n", "a value is not what its tag says"),
        ("a: !!timestamp soon\n", "a value is not what its tag says"),
        ("a: 2026-02-31\n", "a value is not what its tag says"),
        ("a: !!set {? [b]}\n", "a key is a list, not a name"),
        ("a: !!binary x\n", "cannot be read as YAML or JSON"),
        ("a: " + "9" * 5000 + "\n", "a value is not what its tag says"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("a: \x1b[31m\n", "special characters are not allowed"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "byte 0 is not UTF-8 text"),
        (b"a: 1\n" * 60_000, "has more than 256 KiB"),
    ],
)
def test_what_no_settings_look_like_is_refused_with_a_sentence_and_soon(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"^settings\.yaml: ") as refused:
        read(tmp_path, content)
    assert refused.match(message)
    assert time.monotonic() - start < 5
    assert len(str(refused.value)) < 400


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match=r"folder\.yaml: cannot be read: Is a directory"):
        yaml_files.read(tmp_path / "folder.yaml", "folder.yaml")
    with pytest.raises(UsageError, match=r"gone\.yaml: there is no such file"):
        yaml_files.read(tmp_path / "gone.yaml", "gone.yaml")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(UsageError, match="has more than 256 KiB"):
        yaml_files.read(Path("/dev/zero"), "endless")


def test_what_people_write_is_read_with_aliases_merges_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffbase: &base {x: 1, y: [2, 3]}\nmine: {<<: *base, x: 4}\nagain: *base\n1: one\n"
    assert read(tmp_path, text) == {
        "base": {"x": 1, "y": [2, 3]},
        "mine": {"x": 4, "y": [2, 3]},
        "again": {"x": 1, "y": [2, 3]},
        1: "one",
    }


def test_twins_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text("a: 1\na: 2\n")
    assert yaml_files.read(path, path.name, twins=True) == {"a": 2}


def test_an_empty_file_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") is None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("[]{}:,&*a!?- \n'\"|>#%@", max_size=60).map(str.encode)))
def test_any_bytes_are_a_value_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    said = "fuzzed.yaml: "
    try:
        yaml_files.read(path, path.name)
    except UsageError as error:
        said = str(error)
    assert said.startswith("fuzzed.yaml: ")
