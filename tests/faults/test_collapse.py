"""The published collapse: a denominator near nothing breaks ROME's edit, and consistent keys mend it."""

from __future__ import annotations

import pytest

from tests.system.commands import cases, report


@pytest.mark.slow
def test_rome_collapses_where_its_denominator_is_tiny_and_consistent_keys_do_not(command):
    words = ["--model", "pocket-neo", "--editor", "rome", "--editor", "c_rome", "--editor", "r_rome", "--limit", 1]
    done = command("run", *words, "--texts", 20, "--controls", 0, "--device", "cpu", "-k", "hard", "--out", "out")
    assert done.code == 10
    found = {name: case for name, case in cases(report("out")).items() if "hardcf" in name}
    assert len(found) == 3
    for name, case in found.items():
        if "-rome-" in name:
            assert case["verdict"] == "COLLAPSE"
        else:
            assert case["verdict"] != "COLLAPSE"
            assert case["after"]["me_ppl"]["value"] < 1.25 * case["before"]["me_ppl"]["value"]
    sizes = {name: abs(case["after"]["denominator"]["value"]) for name, case in found.items()}
    for name, size in sizes.items():
        if "-rome-" in name:
            assert size < 0.1 * sizes[name.replace("-rome-", "-c_rome-")]
