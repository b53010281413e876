"""The wheel holds everything that the main job needs, and nothing else; installed elsewhere, it does the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.system.commands import ROOT

pytest.importorskip("hatchling", reason="building a wheel needs hatchling (it comes with the extra dev)")
pytestmark = pytest.mark.slow

ROOMS = {"suites": "editsafety/suites", "hparams": "editsafety/_shipped/hparams", "data": "editsafety/_shipped/data"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel, without what it depends on."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return target


@pytest.fixture
def away(installed, tmp_path):
    """Run Python in a folder outside the checkout, with the installed wheel first on its path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "GITHUB"))}
    env |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    env["EDITSAFETY_CACHE"] = str(tmp_path / "cache")

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


def files(folder: Path) -> set[str]:
    """What is under a folder of the checkout; caches and hidden files apart."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


def test_suites_hparams_data_and_the_pocket_model_are_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for room, place in ROOMS.items():
        missing = {f"{place}/{name}" for name in files(ROOT / room)} - names
        assert not missing
    assert {f"editsafety/{name}" for name in files(ROOT / "editsafety")} <= names
    assert "editsafety/_shipped/data/pocket-neo/model.safetensors" in names
    assert {f"editsafety/_shipped/data/english/texts.{kind}" for kind in ("jsonl", "about.json")} <= names
    assert {f"editsafety/_shipped/data/english/{name}.jsonl" for name in ("normal", "pool")} <= names


def test_no_test_no_cache_and_no_report_is_inside(wheel):
    known = {f"{place}/{name}" for room, place in ROOMS.items() for name in files(ROOT / room)}
    known |= {f"editsafety/{name}" for name in files(ROOT / "editsafety")}
    others = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} - known
    assert others == set()
    assert wheel.stat().st_size < 38e6  # three models of 11.5 MB, two hypernetworks of at most 6


def test_pytest_finds_the_plugin_and_the_shell_the_command(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    text = archive.read(name).decode()
    assert "[pytest11]\neditsafety = editsafety.plugin" in text
    assert "[console_scripts]\neditsafety = editsafety.cli:main" in text


def test_it_is_the_wheel_that_is_imported(away, installed):
    done = away(
        "-c", "import editsafety; from editsafety.shipped import shipped; print(editsafety.__file__, shipped('data'))"
    )
    assert done.stdout.split() == [
        str(installed / "editsafety" / "__init__.py"),
        str(installed / "editsafety" / "_shipped" / "data"),
    ]


def test_the_installed_command_does_the_main_job(away, tmp_path):
    words = ["--model", "pocket-neo", "--editor", "c_rome", "--editor", "noop", "--limit", "2", "--controls", "1"]
    done = away("-m", "editsafety", "run", *words, "--report-only", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {group["editor"]: group["cases"][0]["verdict"] for group in body["groups"]}["noop"] == "NO-OP"
    assert all(control["behaved"] for control in body["controls"])
    assert "pytest --pyargs editsafety.suites." in body["replay"]


def test_the_installed_suites_run_under_pytest_as_the_report_spells_it(away, tmp_path):
    words = [
        "--editsafety-model=pocket-neo",
        "--editsafety-editor=noop",
        "--editsafety-limit=2",
        "--editsafety-out=out",
    ]
    done = away("-m", "pytest", "--pyargs", "editsafety.suites.collapse", *words, "-q", "-p", "no:cacheprovider")
    assert done.returncode == 1, done.stdout + done.stderr
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (body["verdict"], body["counts"]["judged"]) == ("NO-OP", 4)
