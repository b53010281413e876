"""The process of a lab, seen from outside: what it says is believed only as far as it can be understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety.supervision import process
from editsafety.supervision.process import LabProcess, ProcessDied

SAYS = """
import os, sys
from multiprocessing.connection import Connection

Connection(int(sys.argv[2])).send_bytes({said!r})
os.read(int(sys.argv[3]), 1)
"""


@pytest.mark.parametrize(
    "said", [b"{}", b"[1]", b"no json", b"\xff", b'{"an": 1}', b"[" * 100_000], ids=lambda it: it[:9]
)
def test_a_process_that_says_what_no_answer_is_is_stopped_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(process, "ENTRY", SAYS.format(said=said))
    lab = LabProcess(tmp_path / "log")
    with pytest.raises(ProcessDied, match="its process said what no answer is, and was stopped") as caught:
        lab.hear(60.0)
    assert caught.value.death.from_outside


def test_an_answer_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ENTRY", SAYS.format(said=b'{"answer": null}'))
    lab = LabProcess(tmp_path / "log")
    assert lab.hear(60.0) == {"answer": None}
    lab.kill()
