"""What goes wrong under a guard: the edit is taken back, and the audit says how far it came."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import editsafety
from editsafety.errors import EditError, StoreError, UndoError, UsageError
from editsafety.guarding import audit
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.guarding.scripted import ask, ctrl_c, guarded, scripted, small, told


def test_an_editor_that_fails_is_an_error_and_the_guard_goes_on(handle: ModelHandle, tmp_path: Path) -> None:
    with guarded(scripted(handle, tmp_path, ValueError("no such layer"), small(handle))) as one:
        failed = one.edit(ask(1))
        assert (failed.verdict, failed.stage) == (Verdict.ERROR, "editor")
        assert failed.sentence == "ERROR: scripted failed: ValueError: no such layer"
        assert one.edit(ask(2)).kept


def test_ctrl_c_while_an_edit_is_tried_takes_it_back(handle: ModelHandle, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with guarded(scripted(handle, tmp_path, small(handle), ctrl_c, small(handle, 2)), audit=path) as one:
        one.edit(ask(1))
        kept = handle.fingerprint()
        with pytest.raises(KeyboardInterrupt):
            one.edit(ask(2))
        assert handle.fingerprint() == kept
        assert one.edit(ask(3)).kept
    assert told(path) == ["opened", "begun", "kept", "begun", "rolled back", "begun", "kept", "closed"]
    assert audit.read(path)[4]["error"].startswith("KeyboardInterrupt")


def test_an_error_while_measuring_takes_the_edit_back(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(scripted(handle, tmp_path, small(handle))) as one:
        before = handle.fingerprint()

        def stop(*_: Any) -> Any:
            assert handle.fingerprint() != before
            raise MemoryError("full")

        monkeypatch.setattr("editsafety.guarding.examination.judge_case", stop)
        with pytest.raises(MemoryError):
            one.edit(ask())
        assert handle.fingerprint() == before


def test_an_edit_whose_audit_cannot_be_written_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "audit.jsonl"
    before = handle.fingerprint()

    def stolen() -> Any:
        path.unlink()
        path.mkdir()
        return small(handle)

    with pytest.raises(StoreError), guarded(scripted(handle, tmp_path, stolen), audit=path) as one:
        one.edit(ask())
    assert handle.fingerprint() == before


def test_an_editor_that_writes_into_the_weights_is_found_out(handle: ModelHandle, tmp_path: Path) -> None:
    def tampering() -> Any:
        handle.model.get_parameter(handle.mlp_out(0).parameter).data.mul_(1.5)
        return small(handle)

    with pytest.raises(UndoError), guarded(scripted(handle, tmp_path, tampering)) as one:
        one.edit(ask())
    with pytest.raises(UsageError, match="cannot be used"):
        one.edit(ask())


def test_a_model_that_is_changed_behind_the_guards_back_is_refused(handle: ModelHandle, tmp_path: Path) -> None:
    parameter = handle.model.get_parameter(handle.mlp_out(0).parameter)
    with guarded(scripted(handle, tmp_path, small(handle))) as one:
        original = parameter.data
        parameter.data = original * 2
        with pytest.raises(UsageError, match=r"was changed behind the guard's back \(transformer\.h\.0\.mlp"):
            one.edit(ask())
        parameter.data = original
        assert one.edit(ask()).kept


def test_an_edit_of_another_model_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    wide = tiny.handle("llama")
    with guarded(scripted(handle, tmp_path, small(wide))) as one, pytest.raises(EditError):
        one.edit(ask())


KILLED = """
    import os
    import signal
    import sys
    from pathlib import Path
    from tests import tiny
    from tests.guarding.scripted import ask, guarded, scripted, small
    handle = tiny.handle("gpt2")
    path = Path(sys.argv[1])
    def die():
        os.kill(os.getpid(), signal.SIGKILL)
    editor = scripted(handle, path.parent, small(handle), die)
    with guarded(editor, audit=path) as one:
        one.edit(ask(1))
        one.edit(ask(2))
"""


def test_the_audit_of_a_killed_process_says_which_edit_it_died_in(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    root = Path(editsafety.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)], cwd=root, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    rows = audit.read(path)
    assert [row["what"] for row in rows] == ["opened", "begun", "kept", "begun"]
    (open_,) = audit.unfinished(rows)
    assert [row["id"] for row in open_["requests"]] == ["r2"]
    assert rows[2]["fingerprint_before"] == rows[0]["fingerprint"] != rows[2]["fingerprint_after"]
    assert os.environ  # the parent lives
