"""docs/ci: every file is YAML that says what it should, and every step of it is run as its runner would run it.

A step's shell text goes to bash as it stands, with the runner's expressions and variables put in. Steps that install
the package are passed over, because it is there. `gh`, which talks to GitHub, is a script of that name over a folder.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system import world
from tests.system.commands import ROOT, report
from tests.system.test_readme import fenced

CI = ROOT / "docs" / "ci"
FEW = "--limit 1 --texts 5 --controls 0"
GH = '''#!{python}
"""GitHub, as far as the action asks it: comments of a pull request in comments.json."""
import json, os, re, sys
from pathlib import Path

words, kept = sys.argv[1:], Path(os.environ["COMMENTS"])
comments = json.loads(kept.read_text())
assert words.pop(0) == "api"
given = {{name: words[words.index(name) + 1] for name in ("--method", "--field", "--jq") if name in words}}
address = next(word for word in words if word.startswith("repos/"))
if "--jq" in given:
    mine = re.search(r'startswith\\("(.*)"\\)', given["--jq"])[1]
    found = [one["id"] for one in comments if one["type"] == "Bot" and one["body"].startswith(mine)]
    print("\\n".join(map(str, found)))
    raise SystemExit
name, _, text = given["--field"].partition("=@")
assert name == "body"
body = Path(text).read_text()
assert len(body) <= 65536
if given["--method"] == "PATCH":
    (one,) = [one for one in comments if str(one["id"]) == address.rsplit("/", 1)[1]]
    one["body"] = body
else:
    assert re.fullmatch(r"repos/someone/editors/issues/7/comments", address), address
    comments.append({{"id": 100 + len(comments), "type": "Bot", "body": body}})
kept.write_text(json.dumps(comments))
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout with the README's editor, and a folder of programs: `editsafety`, `gh`, `python`."""
    (tmp_path / "my_editor.py").write_text(fenced("file: my_editor.py") + "\n")
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "editsafety", f'#!/bin/bash\nexec "{sys.executable}" -m editsafety "$@"\n')
    program(tmp_path / "bin" / "gh", GH.format(python=sys.executable))
    (tmp_path / "comments.json").write_text(
        json.dumps(
            [{"id": 1, "type": "User", "body": "<!-- editsafety-report"}, {"id": 2, "type": "Bot", "body": "hello"}]
        )
    )
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def read(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((CI / name).read_text(encoding="utf-8"))
    return found


def bash(place: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A script as GitHub's `shell: bash` runs it: every failing command ends it."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    own = {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "EDITSAFETY_CACHE": str(place / "cache"),
        "EDITSAFETY_IN_PROCESS": "1",
        "COMMENTS": str(place / "comments.json"),
    }
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(
        script, cwd=place, env={**around, **own, **env}, capture_output=True, text=True, check=False, timeout=300
    )


class Runner:
    """GitHub's runner, as far as the examples need it: expressions, outputs, conditions, `uses` of the action."""

    def __init__(self, place: Path, event: str = "pull_request") -> None:
        self.place, self.event = place, event
        self.known: dict[str, str] = {
            "github.event_name": event, "github.event.pull_request.number": "7", "github.token": "token",
            "vars.EDITSAFETY_BASELINE": "", "vars.EDITSAFETY_FAIL_OVER": "",
        }  # fmt: skip
        self.codes: list[int] = []
        self.log = ""
        self.names: list[str] = []

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", lambda found: self.known[found[1]], text)

    def wanted(self, condition: str) -> bool:
        for part in condition.split("&&"):
            left, operator, right = part.strip().partition(" ")
            if left == "always()":
                continue
            operator, _, right = right.partition(" ")
            assert operator in ("==", "!="), condition
            if (self.known.get(left, "") == right.strip("'")) != (operator == "=="):
                return False
        return True

    def steps(self, steps: list[dict[str, Any]]) -> bool:
        """Run steps one after another; whether all went well."""
        well = True
        for step in steps:
            if (well or "always()" in step.get("if", "")) and self.wanted(step.get("if", "always()")):
                well &= self.step(step)
        return well

    def step(self, step: Mapping[str, Any]) -> bool:
        if "uses" in step:
            return self.used(step)
        assert "inputs." not in step["run"], "an input in a script is a script injection"
        if "pip install" in step["run"]:
            return True  # the package is there
        output = self.place / "output"
        output.write_text("")
        env = {name: self.filled(str(value)) for name, value in step.get("env", {}).items()}
        env |= {
            "GITHUB_OUTPUT": str(output), "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "someone/editors",
            "GITHUB_STEP_SUMMARY": str(self.place / "summary.md"), "RUNNER_TEMP": str(self.place / "temp"),
        }  # fmt: skip
        (self.place / "temp").mkdir(exist_ok=True)
        done = bash(self.place, self.filled(step["run"]), **env)
        self.log += done.stdout + done.stderr
        self.codes.append(done.returncode)
        self.names.append(step.get("name", ""))
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.known[f"steps.{step.get('id')}.outputs.{name}"] = value
        return done.returncode == 0 or bool(step.get("continue-on-error"))

    def used(self, step: Mapping[str, Any]) -> bool:
        """The composite action with its inputs; actions of others are passed over."""
        if not step["uses"].startswith("./"):
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
            return True
        action, given = read("action.yml"), step.get("with", {})
        assert set(given) <= set(action["inputs"])
        for name, declared in action["inputs"].items():
            assert name in given or not declared.get("required")
            self.known[f"inputs.{name}"] = self.filled(str(given.get(name, declared.get("default", ""))))
        self.known["inputs.arguments"] = FEW
        well = self.steps(action["runs"]["steps"])
        for name, declared in action["outputs"].items():
            self.known[f"steps.{step.get('id')}.outputs.{name}"] = self.filled(declared["value"])
        return well


@pytest.mark.slow
def test_the_workflow_runs_the_action_comments_once_and_ends_with_the_verdict(place):
    workflow = read("workflow.yml")
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    (job,) = workflow["jobs"].values()
    runner = Runner(place)
    assert not runner.steps(job["steps"])
    assert runner.names == ["Run", "Comment", "Verdict", "Badge"], runner.log
    assert runner.codes == [0, 0, 11, 0], runner.log
    assert runner.known["steps.crash.outputs.exit-code"] == "11"
    folder = Path(runner.known["steps.crash.outputs.folder"])
    assert report(folder)["verdict"] == "INEFFECTIVE"
    assert re.search(r"^::error title=editsafety%3A INEFFECTIVE pocket-neo-MyEditor::", runner.log, re.MULTILINE)
    assert (place / "summary.md").read_text().startswith("### INEFFECTIVE")
    assert "INEFFECTIVE" in (place / "editsafety.svg").read_text()
    uploaded = [step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", "")]
    assert list(folder.glob("report.*"))
    assert "report.*" in uploaded[0]
    comments = json.loads((place / "comments.json").read_text())
    assert [one["body"][:20] for one in comments[:2]] == ["<!-- editsafety-report"[:20], "hello"]
    assert comments[2]["body"].startswith("<!-- editsafety-report ")

    page = place / "temp" / "editsafety-comment.md"
    page.write_text(page.read_text().replace("INEFFECTIVE", "BETTER"))
    (comment,) = [step for step in read("action.yml")["runs"]["steps"] if step["name"] == "Comment"]
    assert runner.step(comment)
    comments = json.loads((place / "comments.json").read_text())
    assert len(comments) == 3
    assert "BETTER" in comments[2]["body"]
    runner.known["github.event_name"] = "push"
    assert not runner.wanted(comment["if"])


@pytest.mark.slow
def test_the_action_gives_editors_baseline_and_limits_to_the_command(place):
    """What it hands over is read off a command of the same name that writes its words down."""
    program(place / "bin" / "editsafety", '#!/bin/bash\nprintf "%s\\n" "$@" > words\nexit 12\n')
    runner = Runner(place, event="push")
    step = {
        "uses": "./.github/actions/editsafety", "id": "crash",
        "with": {
            "editor": "rome\nmy editor.py:Mine; touch pwned\n", "baseline": "base line.json",
            "fail-over": "latency:20% memory:10%",
        },
    }  # fmt: skip
    assert not runner.steps([step])
    assert runner.codes == [0, 12]
    words = (place / "words").read_text().splitlines()
    temp = place / "temp"
    assert words == [
        "run", "--model", "pocket-neo", "--out", f"{temp}/editsafety", "--comment", f"{temp}/editsafety-comment.md",
        "--editor", "rome", "--editor", "my editor.py:Mine; touch pwned", "--baseline", "base line.json",
        "--fail-over", "latency:20%", "--fail-over", "memory:10%", *FEW.split(),
    ]  # fmt: skip
    assert not (place / "pwned").exists()


@pytest.mark.slow
def test_the_gitlab_job_runs_and_its_files_are_kept(place):
    (job,) = read("gitlab-ci.yml").values()
    env = {**job["variables"], "ARGUMENTS": FEW, "CI_PROJECT_DIR": str(place)}
    script = [line for line in job["script"] if not line.startswith("pip install")]  # the package is there
    assert len(script) == 1
    done = bash(place, "\n".join(script), **env)
    assert done.returncode in job["allow_failure"]["exit_codes"], done.stderr
    for line in job["after_script"]:
        assert bash(place, line, **env).returncode == 0
    kept = {path.relative_to(place).as_posix() for path in (place / "reports").rglob("*") if path.is_file()}
    assert kept >= {"reports/ci/report.json", "reports/ci/report.md", "reports/comment.md", "reports/editsafety.svg"}
    assert job["artifacts"]["paths"] == ["reports/"]


@pytest.mark.slow
def test_the_hook_is_run_before_a_push_when_the_editor_changed(place):
    ((hook,),) = (one["hooks"] for one in read("pre-commit-config.yaml")["repos"])
    assert re.search(hook["files"], "my_editor.py")
    assert not re.search(hook["files"], "other/my_editor.py")
    assert (hook["language"], hook["pass_filenames"], hook["stages"]) == ("system", False, ["pre-push"])
    entry = hook["entry"].replace("--limit 2 --texts 10", "--limit 1 --texts 5")
    done = bash(place, entry)
    assert done.returncode == 11, done.stderr
    assert "exit code 11" in done.stdout


def test_every_example_is_described():
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert {path.name for path in CI.iterdir()} == set(re.findall(r"\]\(ci/([\w.-]+)\)", page))


@pytest.mark.slow
@pytest.mark.thorough
def test_the_parts_of_the_slurm_array_are_merged_to_one_run(place, tmp_path):
    paths = world.write(tmp_path / "world")
    env = {"MODEL": paths["model"], "HARD": paths["hard"], "NORMAL": paths["normal"], "RUN": "run"}
    text = (CI / "slurm.sh").read_text(encoding="utf-8")
    assert "#SBATCH --array=1-" in text
    small = text.replace("--editor rome --editor memit", f"--editor noop --texts-from {paths['texts']} --device cpu")
    assert small != text
    for number in ("1", "2"):
        part = bash(place, small, SLURM_ARRAY_TASK_ID=number, SLURM_ARRAY_TASK_COUNT="2", **env)
        assert part.returncode == 0, part.stderr
    merged = bash(place, 'editsafety merge "$RUN"/part-* -o "$RUN/whole"', **env)
    assert merged.returncode == 11, merged.stderr
    assert report(place / "run" / "whole")["counts"]["judged"] == 4


def test_the_matrix_computes_every_part_and_merges_them_all():
    jobs = read("matrix.yml")["jobs"]
    parts = jobs["crash-test"]["strategy"]["matrix"]["part"]
    lines = {
        name: [step["run"] for step in jobs[name]["steps"] if "editsafety " in step.get("run", "")] for name in jobs
    }
    (run,), (merge,) = lines["crash-test"], lines["verdict"][-1:]
    assert parts == list(range(1, len(parts) + 1))
    assert f"--shard ${{{{ matrix.part }}}}/{len(parts)} -o part-${{{{ matrix.part }}}}" in run
    assert f"merge {' '.join(f'part-{part}' for part in parts)} -o whole" in merge
    assert jobs["verdict"]["if"] == "always()"
