"""Pytest as people call it, and a machine that lacks what is optional: the same verdicts, or a sentence."""

from __future__ import annotations

import json
import sys

import pytest

from tests.system import world
from tests.system.commands import ROOT, ended, given, report, start, without_times

OPTIONAL = ("peft", "lm_eval", "matplotlib", "sklearn", "accelerate", "bitsandbytes")
WITHOUT = f"""
import sys
for name in {OPTIONAL!r}:
    sys.modules[name] = None
from editsafety.cli import main
sys.argv[0] = "editsafety"
main()
"""
SUITE = str(ROOT / "suites" / "collapse")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "flags",
    [
        ("-p", "no:cacheprovider", "--strict-config", "--strict-markers", "-W", "error", "-n", "0"),
        ("-p", "no:terminal", "-p", "no:cacheprovider"),
        ("-p", "no:xdist"),
        ("-p", "no:logging", "-s", "--import-mode=importlib", "--tb=no", "-q"),
    ],
    ids=" ".join,
)
def test_flags_of_pytest_change_no_verdict(paths, tmp_path, flags):
    words = [SUITE, *flags, *world.options(paths, "Nudge", "Explodes"), "--editsafety-out=out"]
    done = ended(start(*words, cwd=tmp_path, program=("-m", "pytest")))
    assert done.code == 1, done.out + done.err
    assert "Traceback" not in done.err
    body = report(tmp_path / "out")
    assert body["verdict"] == "COLLAPSE"
    found = {f"{group['editor']} {case['verdict']}" for group in body["groups"] for case in group["cases"]}
    assert found == {"Nudge PASS", "Explodes COLLAPSE"}


@pytest.mark.slow
def test_collecting_only_loads_no_torch_and_no_model(paths, tmp_path):
    """In a process of its own, which says at its end what it has imported."""
    (tmp_path / "imported.py").write_text(
        "import sys\n\n\ndef pytest_unconfigure(config):\n"
        '    sys.stderr.write(f\'IMPORTED {sorted({"torch", "transformers"} & set(sys.modules))}\')\n'
    )
    words = [SUITE, "--collect-only", "-q", "-p", "imported", *world.options(paths, "rome", "noop")]
    done = ended(start(*words, cwd=tmp_path, program=("-m", "pytest"), PYTHONPATH=f"{tmp_path}:{ROOT}"))
    assert done.code == 0, done.out + done.err
    assert "tiny-model-rome-hard-0" in done.out
    assert "IMPORTED []" in done.err
    assert not (tmp_path / "reports").exists()


@pytest.mark.thorough
def test_a_run_needs_nothing_that_is_optional(paths, tmp_path):
    words = ["run", *given(paths, "Nudge", "noop", controls=0)]
    bare = ended(start(*words, "--out", "bare", cwd=tmp_path, program=("-c", WITHOUT)))
    whole = ended(start(*words, "--out", "whole", cwd=tmp_path))
    assert bare.code == whole.code == 11, bare.out + bare.err
    assert without_times(report(tmp_path / "bare")) == without_times(report(tmp_path / "whole"))


def test_an_editor_that_needs_an_optional_package_names_it(paths, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    numbers = {"layers": [1], "target_modules": ["mlp_in"], "lora_type": "lora", "rank": 2, "lora_alpha": 8}
    (tmp_path / "lora.yaml").write_text(json.dumps({**numbers, "lora_dropout": 0.0, "num_steps": 2, "lr": 0.01}))
    done = command("run", *given(paths, "lora", hparams="lora.yaml", controls=0, out="out"))
    assert done.code == 13
    assert "pip install" in done.out
    assert "peft" in done.out or "editsafety[lora]" in done.out
