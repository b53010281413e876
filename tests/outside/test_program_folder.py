"""Programs and their folder are gone when the process that started them is, however it went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.outside.test_program import is_running

PATIENCE = 60.0  # seconds; a busy machine starts Python slowly
OWNER = """
import sys
from editsafety.outside.program_folder import ProgramFolder

place = ProgramFolder()
with place.fresh() as folder:
    print(place.folder, flush=True)
    place.run(["sh", "-c", 'sleep 600 & echo $! > "$0"; wait', str(folder.parent / "child")], None)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_neither_program_nor_folder_outlives_its_owner(number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert owner.stdout is not None
    with owner.stdout:
        folder = Path(owner.stdout.readline().strip())
    until = time.monotonic() + PATIENCE
    while not (note := folder / "child").exists() or not note.read_text().strip():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = int(note.read_text())
    assert is_running(child)
    os.kill(owner.pid, number)
    owner.wait(PATIENCE)
    until = time.monotonic() + PATIENCE
    while folder.exists() or is_running(child):
        assert time.monotonic() < until, "the folder, or what was started in it, is still there"
        time.sleep(0.02)
