"""`editsafety bench`: a table of ratios, and the figures of every pair in a file."""

import json


def test_a_job_is_timed_both_ways_and_every_pair_is_kept(command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = command("bench", "ppl-third", "--pairs", 2, "--model=pocket-neo", "--device=cpu", "-o", "bench.json")
    assert done.code == 0, done.err
    assert "ppl-third" in done.out
    assert "…" not in done.out  # nothing is cut off on a narrow terminal
    (row,) = json.loads((tmp_path / "bench.json").read_text())
    assert (row["job"], row["model"], row["against"]) == ("ppl-third", "pocket-neo", "plain")
    assert len(row["slow_seconds"]) == len(row["fast_seconds"]) == 2
    assert row["apart"] == 0.0  # entered at the edited layer: the same bits
    assert 0 < row["share_of_matmul_rate"] < 1


def test_every_job_is_listed_with_what_it_is_compared_with(command):
    done = command("bench", "--list")
    assert done.code == 0
    assert "memit-32" in done.out
    assert "published" in done.out


def test_a_job_that_there_is_not_is_one_sentence(command):
    done = command("bench", "memmit-32")
    assert done.code == 4
    assert done.err.count("\n") == 1
    assert "memit-32" in done.err
