"""One word means one thing in every command, and every command can be asked for help."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import typer
from tokenizers import Tokenizer
from typer.testing import CliRunner

from editsafety import datasets
from editsafety.cli.app import COMMANDS, app
from editsafety.cli.options import Loading, collapse_limit, collapse_limit_of_runs, refuse_unwritable, requests_for
from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.policy import Policy
from editsafety.model.loading import ModelSpec
from editsafety.runs.first_tokens import begins_with_one_token
from editsafety.runs.folders import PLAN
from editsafety.runs.offers import HARDEDIT, ORDINARY
from editsafety.runs.settings import Settings, options_of

GONE = (
    "--text-limit",
    "--probes",
    "--probe-limit",
    "--go-on",
    "--above",
    "--json",
    "--store",
    "--output",
    "--text-source",
)
STRICT = """\
name: strict
case:
  perplexity: {measure: me_ppl, figure: ratio, pass_at_most: 1.5, warn_at_most: 5, fails_as: COLLAPSE, why: a test}
group: {}
"""


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, one in (group or typer.main.get_command(app)).commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*words, name))
        else:
            yield (*words, name), one


ALL = dict(commands())
OPTIONS = {
    words: {name: one for one in command.params for name in one.opts if name.startswith("-")}
    for words, command in ALL.items()
}


def having(name: str) -> list[tuple[str, ...]]:
    return [words for words, known in OPTIONS.items() if name in known]


@pytest.mark.parametrize("words", [(), ("data",), ("models",), *ALL], ids=" ".join)
def test_every_command_can_be_asked_for_help(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "Usage" in done.output
    for name in OPTIONS.get(words, {}):
        assert name in done.output


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_says_what_it_is_and_hides_nothing_in_brackets(words: tuple[str, ...]) -> None:
    """rich takes what stands in brackets for its own markup and shows nothing of it."""
    for name, one in OPTIONS[words].items():
        if name != "--help":
            assert one.help, name
            assert "[" not in one.help, name


def test_tools_take_the_requests_that_a_run_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`keys` looked at HardEdit in the order of its file, which is that of another tokenizer.

    This one knows the last of its subjects as words, and spells all others.
    """
    known = [row for row in datasets.requests(HARDEDIT) if row.subject_first and row.subject.isalpha()][-5:]
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    letters = list(string.printable.strip())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1000, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator([row.subject for row in known] * 10, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    hard = requests_for(str(tmp_path), HARDEDIT, Settings((), ()), Loading(), 5)
    assert {row.subject for row in known} & {row.subject for row in hard}
    assert all(begins_with_one_token(row, tokenizer) for row in hard)
    ordinary = requests_for(str(tmp_path), ORDINARY, Settings((), ()), Loading())
    assert not any(begins_with_one_token(row, tokenizer) for row in ordinary)
    left = len(datasets.requests(ORDINARY)) - len(ordinary)
    assert ("left out: they begin with a subject of one token" in capsys.readouterr().err) == bool(left)


def test_the_version_is_said_without_a_command() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.stdout) == (0, f"editsafety {metadata.version('editsafety')}\n")


def test_the_plain_help_lists_the_commands_in_groups() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    places = [shown.index(panel) for panel in COMMANDS]
    assert places == sorted(places)
    for (panel, group), place, end in zip(COMMANDS.items(), places, [*places[1:], len(shown)], strict=True):
        for name in group:
            assert f" {name} " in shown[place:end], f"{name} is not in {panel}"


@pytest.mark.parametrize("name", GONE)
def test_a_word_of_old_is_no_option_of_any_command(name: str) -> None:
    assert having(name) == []


@pytest.mark.parametrize("name", ["--limit", "--items", "--texts", "--edits", "--every"])
def test_what_counts_is_a_whole_number_everywhere(name: str) -> None:
    assert having(name)
    for words in having(name):
        done = CliRunner().invoke(app, [*words, name, "many"], env={"COLUMNS": "200"})
        assert (done.exit_code, "valid integer" in done.output) == (2, True), words


@pytest.mark.parametrize("name", ["--probe", "--size"])
def test_what_is_repeatable_is_so_everywhere(name: str) -> None:
    for words in having(name):
        assert OPTIONS[words][name].multiple, words


def test_where_things_go_is_out_with_one_short_form() -> None:
    for words in having("--out"):
        if words != ("apply",):
            assert OPTIONS[words].get("-o") is OPTIONS[words]["--out"], words
    assert {words[0] for words in having("--out")} == {
        "run", "baseline", "edit", "abilities", "screen", "mine", "propose", "sequence", "curves", "check", "verify",
        "apply", "doctor", "merge", "keys", "surrogate", "experiment", "bench", "trace", "diff", "sweep", "calibrate",
    }  # fmt: skip


def test_no_command_knows_the_ratio_of_a_collapse_by_itself() -> None:
    assert len(having("--collapse-above")) == 8
    for words in having("--collapse-above"):
        assert OPTIONS[words]["--collapse-above"].default is None, words
        needed = [part for name in ("--model", "--editor") if name in OPTIONS[words] for part in (name, "none")]
        done = CliRunner().invoke(app, [*words, *needed, "--collapse-above", "0.5"], env={"COLUMNS": "200"})
        said = " ".join(f"{done.output} {done.exception}".split())
        assert "expected at least 1" in said or "greater than or equal to 1" in said.replace(" │ │ ", " "), (
            words,
            said,
        )


def test_whatever_loads_a_model_takes_the_same_options() -> None:
    names = [one.command_line for one in options_of(Loading)]
    for words in having("--device"):
        for name in names:
            assert name in OPTIONS[words], (words, name)
            assert OPTIONS[words][name].help == OPTIONS[("run",)][name].help
    assert len(having("--device")) == 19


def test_loading_is_what_a_model_is_loaded_with() -> None:
    loading = Loading("cpu", "bfloat16", "main", True, True)
    assert loading.spec("gpt2") == ModelSpec("gpt2", "cpu", "bfloat16", "main", True, True)
    assert Loading().spec("gpt2") == ModelSpec("gpt2", dtype="auto")
    assert Loading(device_map="auto").spec("gpt2") == ModelSpec("gpt2", dtype="auto", device_map="auto")
    assert Loading().spec("gpt2", chat=True) == ModelSpec("gpt2", dtype="auto", chat=True)


def run_of(folder: Path, policy: str, **more: object) -> Path:
    """A folder with the plan of a run that was judged by a policy."""
    folder.mkdir()
    (folder / PLAN).write_text(json.dumps({"settings": {"policy": policy, **more}}))
    return folder


def test_a_collapse_is_what_the_policy_says_unless_a_ratio_is_given(tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(STRICT)
    assert collapse_limit(None) == Policy.read("default").collapse
    assert collapse_limit(None, str(strict)) == 5
    assert collapse_limit(3.5, str(strict)) == 3.5
    with pytest.raises(UnknownNameError, match="did you mean 'default'"):
        collapse_limit(None, "defualt")


def test_stored_runs_are_read_by_the_policy_they_were_made_with(tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(STRICT)
    usual, other = run_of(tmp_path / "usual", "default"), run_of(tmp_path / "other", str(strict))
    lost, bare = run_of(tmp_path / "lost", "gone.yaml"), tmp_path
    default = Policy.read("default").collapse
    assert collapse_limit_of_runs(None, [other]) == 5
    assert collapse_limit_of_runs(None, [usual, lost, bare]) == default
    assert collapse_limit_of_runs(7.0, [usual, other]) == 7
    with pytest.raises(UsageError, match=r"usual past 2x, .*other past 5x\. Give --collapse-above"):
        collapse_limit_of_runs(None, [usual, other])


def test_a_stored_run_that_moved_the_limit_is_read_by_its_own(tmp_path: Path) -> None:
    moved = run_of(tmp_path / "moved", "default", collapse_above=12)
    unmoved, damaged = (run_of(tmp_path / str(i), "default", collapse_above=i) for i in (None, "many"))
    assert collapse_limit_of_runs(None, [moved]) == 12
    assert collapse_limit_of_runs(None, [unmoved, damaged]) == Policy.read("default").collapse
    with pytest.raises(UsageError, match=r"moved past 12x, .*None past 2x"):
        collapse_limit_of_runs(None, [moved, unmoved])


def test_a_place_where_no_file_can_be_written_is_refused_before_anything_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"folder: is a folder\. Give the path of a file"):
        refuse_unwritable(tmp_path / "folder")
    with pytest.raises(UsageError, match="file is a file, so there can be nothing in it"):
        refuse_unwritable(tmp_path / "file" / "deep" / "edit.safetensors")
    refuse_unwritable(tmp_path / "new" / "deep" / "edit.safetensors")
    refuse_unwritable(None)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as the system says of a read-only folder, root apart
    with pytest.raises(UsageError, match=r"is read-only\. Give another path"):
        refuse_unwritable(tmp_path / "edit.safetensors")
