"""Runs on a tiny model, with a cache of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import editsafety.cli.app
import editsafety.lab.lab
import editsafety.plugin.session
from editsafety.model.handle import ModelHandle
from tests.system import commands, world


@pytest.fixture(scope="session", autouse=True)
def everything_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytester forgets what was first imported during its test, and parts of torch cannot be imported twice.

    So what is imported on first use (writing and reading a model, an optimiser) is used once before.
    """
    paths = world.write(tmp_path_factory.mktemp("imported"))
    handle = ModelHandle.load(paths["model"])
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).step()
    handle.logits(handle.batch([handle.ids("one")]))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact of an earlier test is found."""
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors run in the process of the test: a new one for every run takes seconds, and tests/supervision has it."""
    monkeypatch.setenv("EDITSAFETY_IN_PROCESS", "1")


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A tiny model, two hard and two normal requests, texts, and editors."""
    return world.write(tmp_path)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> commands.Command:
    """`editsafety ...` in this process, as if typed in `tmp_path`: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def typed(*words: object) -> commands.Done:
        monkeypatch.setattr(sys, "argv", ["editsafety", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            editsafety.cli.main()
        return commands.Done(end.value.code, *capfd.readouterr())

    return typed
