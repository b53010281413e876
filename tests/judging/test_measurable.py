"""A limit on what nobody measures is refused before torch is there, in whichever part of the policy it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from editsafety import abilities, discovery
from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy
from editsafety.runs.measurement import Column

LIMIT = "{measure: %s, figure: after, pass_at_most: 3, why: it grows}"
HEAD = "name: mine\ncase: {a: {measure: me_ppl, figure: ratio, pass_at_most: 2, why: it grows}}\n"


def policy(folder: Path, part: str, measure: str) -> Policy:
    path = folder / "mine.yaml"
    group = "" if part == "group" else "group: {}\n"
    head = HEAD if part != "case" else "name: mine\n"
    path.write_text(f"{head}{group}{part}: {{mine: {LIMIT % measure}}}\n")
    return Policy.read(path)


@pytest.mark.parametrize("part", ["case", "group", "course"])
def test_an_unknown_measurement_is_refused_in_every_part(tmp_path: Path, part: str) -> None:
    wrong = policy(tmp_path, part, "localty")
    with pytest.raises(UnknownNameError, match=f"no measurement named 'localty'; did you mean 'locality'.*{part}.mine"):
        refuse_unmeasured(wrong)


@pytest.mark.parametrize(
    ("part", "measure", "known"),
    [
        ("case", "fluency", True),
        ("case", "numerator", True),
        ("group", "efficacy_wild", True),
        ("course", "fluency", True),  # is then measured at every step
        ("course", "kept", True),
        ("course", "drift_growth", True),
        ("course", "weights_finite", True),
        ("course", "ppl_worst", True),
        ("case", "kept", False),  # a single edit has no steps
        ("course", "delta_norm", False),  # a step of a course is many edits
        ("course", "nli", False),  # nobody asked for that ability
    ],
)
def test_each_part_knows_what_is_measured_for_it(tmp_path: Path, part: str, measure: str, known: bool) -> None:
    limits = policy(tmp_path, part, measure)
    if known:
        refuse_unmeasured(limits)
    else:
        with pytest.raises(UnknownNameError):
            refuse_unmeasured(limits)


def test_an_ability_that_is_asked_for_can_be_limited_along_a_course(tmp_path: Path) -> None:
    limits = policy(tmp_path, "course", "nli")
    refuse_unmeasured(limits, [abilities.measurement_of("pocket-world/abilities/nli")])
    refuse_unmeasured(limits, also=["nli"])


@pytest.mark.parametrize(
    ("spec", "name"), [("nli", "nli"), ("rte:some/file.tsv", "rte"), ("some/where/mine.jsonl", "mine")]
)
def test_the_measurement_of_a_probe_is_known_without_its_file(spec: str, name: str) -> None:
    assert abilities.measurement_of(spec) == name


class Quiet:
    """A plug-in that does not say what it gives."""

    name, version, scope = "quiet", 1, "case"


class Told(Quiet):
    """One that does."""

    gives = ("sureness",)


@pytest.mark.parametrize(("plugin", "known", "unknown"), [(Told(), "sureness", "localty"), (Quiet(), "localty", "")])
def test_a_plug_in_is_asked_what_it_gives_and_left_alone_when_it_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Quiet, known: str, unknown: str
) -> None:
    class Point:
        name, value, dist = "theirs", "theirs:MEASURE", None

        def load(self) -> Quiet:
            return plugin

    def points(group: str, name: str = "theirs") -> list[Point]:
        return [Point()] if group == "editsafety.measures" and name == "theirs" else []

    monkeypatch.setattr(discovery, "entry_points", points)
    refuse_unmeasured(policy(tmp_path, "case", known))
    if unknown:
        with pytest.raises(UnknownNameError):
            refuse_unmeasured(policy(tmp_path, "case", unknown))


@pytest.mark.parametrize("suite", ["collapse", "sequential"])
def test_the_command_refuses_it_before_torch_is_there(tmp_path: Path, suite: str) -> None:
    policy(tmp_path, "course", "there_is_no_such_thing")
    words = [
        "run",
        "--model",
        "pocket-neo",
        "--editor",
        "ft",
        "--suite",
        suite,
        "--policy",
        str(tmp_path / "mine.yaml"),
    ]
    code = (
        "import sys\nfrom editsafety.cli import main\n"
        f"sys.argv = ['editsafety', *{words!r}]\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "no measurement named 'there_is_no_such_thing'" in done.stderr
    assert "course.mine" in done.stderr
    assert "Traceback" not in done.stderr


class Impostor(Quiet):
    """A measure of somebody else's that gives a figure which is not its own."""

    def __init__(self, *gives: str, shows: str = "") -> None:
        if gives:
            self.gives = gives
        if shows:
            self.columns = (Column(shows, "mine"),)


@pytest.mark.parametrize("name", ["aaa", "zzz"])  # whichever of the two is read first
@pytest.mark.parametrize(
    ("plugin", "owner"),
    [
        (Impostor("sureness", "me_ppl"), "'me_ppl', a figure of measure perplexity"),
        (Impostor("locality_tokens"), "'locality_tokens', a figure of measure locality"),
        (Impostor(shows="efficacy"), "'efficacy', a figure of measure efficacy"),
        (Impostor("kept"), "'kept', a figure of the walk of a course"),
        (Impostor("drift_growth"), "'drift_growth', a figure of the walk of a course"),
        (Impostor("nli"), "'nli', a figure of an ability"),
    ],
)
def test_a_figure_of_two_measures_is_refused_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Impostor, owner: str, name: str
) -> None:
    points = [plugged(name, plugin)]
    monkeypatch.setattr(
        discovery, "entry_points", lambda group, name=None: points if group == "editsafety.measures" else []
    )
    with pytest.raises(UsageError, match=rf"measure {name} \(a package \(theirs:MEASURE\)\) gives {owner}"):
        refuse_unmeasured(policy(tmp_path, "case", "efficacy"), ["nli"])


def plugged(name: str, plugin: Quiet) -> SimpleNamespace:
    return SimpleNamespace(name=name, value="theirs:MEASURE", dist=None, load=lambda: plugin)
