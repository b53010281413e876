"""What `editsafety doctor` finds: every kind of thing that is there, that is missing, and what to do about it."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from editsafety.datasets import fetch as fetching
from editsafety.lab import readiness
from editsafety.lab.readiness import Readiness, Standing
from editsafety.model.loading import ModelSpec


def about(found: list[Readiness], name: str) -> Readiness:
    (one,) = (finding for finding in found if finding.about == name)
    return one


def test_every_requirement_and_every_extra_has_a_line_and_what_is_installed_here_is_enough() -> None:
    found = [*readiness.packages()]
    required = [Requirement(text) for text in metadata.requires("editsafety") or ()]
    for one in required:
        if one.marker is None:
            assert about(found, one.name).state is Standing.READY
    assert about(found, "torch").found == metadata.version("torch")
    assert about(found, "[lora]").state is not Standing.MISSING


def test_a_package_that_is_missing_or_out_of_range_is_named_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ["no-such-package>=2", "numpy>=99,<100", 'other-thing>=1; extra == "more"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = [*readiness.packages()]
    gone, old, extra = about(found, "no-such-package"), about(found, "numpy"), about(found, "[more]")
    assert (gone.state, gone.found) == (Standing.MISSING, "no-such-package is not installed")
    assert gone.todo == 'pip install "no-such-package>=2"'
    assert (old.state, old.found) == (Standing.MISSING, f"numpy {metadata.version('numpy')}, expected <100,>=99")
    assert (extra.state, extra.found) == (Standing.NOTE, "other-thing is not installed")
    assert extra.todo.startswith('pip install "editsafety[more]"')


def test_data_sets_are_not_fetched_whole_or_altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    (first, source), *_ = fetching.SOURCES.items()
    assert about([*readiness.data_sets()], first) == Readiness(
        first, Standing.NOTE, "not fetched", f"editsafety data fetch {first}"
    )
    path = fetching.cache_folder() / source.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert about([*readiness.data_sets()], first).state is Standing.MISSING
    assert about([*readiness.data_sets()], "shipped data").state is Standing.READY


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert readiness.space(tmp_path / "not" / "yet").state is Standing.READY
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in readiness.space(tmp_path / "file").found
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
        found = readiness.space(tmp_path)
    assert (found.state, found.found) == (Standing.MISSING, f"{tmp_path}, 5 MiB free")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert readiness.space(tmp_path).state is Standing.MISSING


def test_what_a_model_needs_is_held_against_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "free_memory", lambda _: 10 << 30)
    (large,) = readiness.of_model(ModelSpec("random:gpt2-xl", device="cpu"), ())
    (small,) = readiness.of_model(ModelSpec("random:gpt2", device="cpu"), ())
    assert (large.state, small.state) == (Standing.MISSING, Standing.READY)
    assert large.found == "1557.6 M parameters, about 11.6 GiB as float32 on cpu; 10.0 GiB are free"


def test_what_is_not_here_is_a_note_and_offline_something_missing() -> None:
    states = [
        next(readiness.of_model(ModelSpec("nobody/has-this-model", offline=offline), ())).state
        for offline in (False, True)
    ]
    assert states == [Standing.NOTE, Standing.MISSING]


@pytest.mark.parametrize(
    ("editor", "said"),
    [("rome", "hyperparameters are there"), ("romme", "no editor named 'romme'"), ("no.py:Where", "no.py")],
)
def test_an_editor_without_hyperparameters_for_the_model_is_named(editor: str, said: str) -> None:
    *_, found = readiness.of_model(ModelSpec("pocket-neo"), (editor,))
    assert said in found.found
    assert (found.state is Standing.READY) == (editor == "rome")


def test_a_wrong_name_of_a_model_or_a_device_is_a_line_and_not_an_error() -> None:
    for spec in (ModelSpec("pocket-nobody"), ModelSpec("random:nobody"), ModelSpec("pocket-neo", device="tpu")):
        (found,) = readiness.of_model(spec, ("rome",))
        assert found.state is Standing.MISSING
