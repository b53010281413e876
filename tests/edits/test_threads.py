"""Threads and copies of the process: whoever goes on is named, whoever comes to an end is waited for."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time

import pytest

from editsafety.edits.session import EditSession
from editsafety.edits.threads import Threads
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def test_a_thread_that_goes_on_writing_is_named_and_no_weight_is_trusted(handle: ModelHandle) -> None:
    stop = threading.Event()
    weight = handle.model.transformer.ln_f.weight

    def scribble() -> None:
        while not stop.wait(0.01):
            weight.data.add_(1e-6)

    thread = threading.Thread(target=scribble, name="scribbler")
    try:
        with pytest.raises(UndoError) as caught, EditSession(handle):
            thread.start()
        assert "transformer.ln_f.weight differs" in caught.value.findings
        (said,) = caught.value.running
        assert said.startswith("the thread 'scribbler' goes on (scribble in test_threads.py, line ")
    finally:
        stop.set()
        thread.join()


def test_a_thread_that_comes_to_its_end_is_waited_for(handle: ModelHandle) -> None:
    session = EditSession(handle)
    with session:
        threading.Thread(target=time.sleep, args=(0.1,)).start()
    assert session.leftovers == ()


def test_a_thread_without_an_object_is_found_by_its_frame() -> None:
    import _thread

    before = Threads.now()
    lock = _thread.allocate_lock()
    lock.acquire()

    def wait() -> None:
        running.set()
        lock.acquire()

    running = threading.Event()
    _thread.start_new_thread(wait, ())
    running.wait()
    try:
        (said,) = before.left_running()
        assert "wait in test_threads.py" in said
    finally:
        lock.release()
    assert before.left_running() == ()


def test_a_child_process_that_goes_on_is_named() -> None:
    before = Threads.now()
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), name="child-of-mine")
    child.start()
    try:
        assert before.left_running() == ("the child process child-of-mine goes on",)
    finally:
        child.kill()
        child.join()
    assert before.left_running() == ()


FORKS = """
import os, time
from editsafety.edits.threads import Threads

before = Threads.now()
ended, lasting = os.fork(), os.fork()
if not ended or not lasting:
    time.sleep(0.2 if not ended else 60)
    os._exit(0)
print(*before.left_running(), sep="\\n")
os.kill(lasting, 9)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of them")
def test_a_copy_of_the_process_that_goes_on_is_named_and_a_program_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout == "the child process (a copy of this one, made by os.fork) goes on\n"
    before = Threads.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        assert before.left_running() == ()
        program.kill()


class Bar(threading.Thread):
    """What a progress bar leaves running for as long as the process lives."""


@pytest.mark.parametrize(("module", "harmless"), [("tqdm._monitor", True), ("rich.live", True), ("mine.tqdm", False)])
def test_a_thread_of_a_progress_bar_or_a_debugger_may_go_on(
    monkeypatch: pytest.MonkeyPatch, module: str, harmless: bool
) -> None:
    monkeypatch.setattr(Bar, "__module__", module)
    monkeypatch.setattr("editsafety.edits.threads.GRACE", 0.0)
    before, stop = Threads.now(), threading.Event()
    bar = Bar(target=stop.wait, name="bar", daemon=True)
    bar.start()
    try:
        assert len(before.left_running()) == (0 if harmless else 1)
    finally:
        stop.set()
        bar.join()
