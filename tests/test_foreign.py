"""Somebody else's code may raise anything: only a signal ends more than itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from editsafety.errors import EditorError, UsageError, sentence_of
from editsafety.foreign import contained


class Unspeakable(Exception):
    def __str__(self):
        raise SystemExit("no words")


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (SystemExit(0), "rome raised SystemExit: 0, which ends a program or a test and is no error"),
        (KeyboardInterrupt(), "rome raised KeyboardInterrupt, which ends"),
        (GeneratorExit("closed"), "rome raised GeneratorExit: closed, which ends"),
        (BaseException("bare"), "rome raised BaseException: bare, which ends"),
        (pytest.skip.Exception("not today"), "rome raised Skipped: not today, which ends"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_end_a_program_or_a_test_is_an_error_of_whoever_raised_it(ending, said):
    with pytest.raises(EditorError) as caught, contained("rome"):
        raise ending
    assert str(caught.value).startswith(said)
    assert caught.value.__cause__ is ending
    assert caught.traceback[-1].path.name == "test_foreign.py"  # where it was raised is not lost


def test_an_error_stays_what_it_is():
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught, contained("rome"):
        raise error
    assert caught.value is error


def test_nothing_comes_of_nothing():
    before = signal.getsignal(signal.SIGINT)
    with contained("rome"):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_passes_through():
    with pytest.raises(KeyboardInterrupt), contained("outer"), contained("inner"):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("instead", [None, ValueError("instead"), SystemExit(1)], ids=repr)
def test_ctrl_c_passes_through_code_that_swallows_it(instead):
    def swallowing():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if instead is not None:
                raise instead from None

    with pytest.raises(KeyboardInterrupt), contained("rome"):
        swallowing()


def test_a_handler_that_raises_nothing_interrupts_nothing(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with contained("rome"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_it_is_contained_in_another_thread_as_well():
    found = []

    def work():
        try:
            with contained("rome"):
                sys.exit(3)
        except EditorError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["rome raised SystemExit: 3, which ends a program or a test and is no error"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("say it"), "say it"),
        (ValueError("wrong"), "ValueError: wrong"),
        (MemoryError(), "MemoryError"),
        (Unspeakable(), "Unspeakable: (what it says is not known: its __str__ raised SystemExit)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_a_sentence(error, said):
    assert sentence_of(error) == said


FORKS = """
import os, sys
from editsafety.foreign import contained

with contained("rome"):
    child = os.fork()
    if child == 0 and "fails" in sys.argv:
        raise ValueError("in the copy")
_, status = os.waitpid(child, 0)
print("came out", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
@pytest.mark.parametrize(("words", "status"), [((), 0), (("fails",), 1)])
def test_a_copy_of_the_process_ends_where_it_comes_out(words, status):
    done = subprocess.run([sys.executable, "-c", FORKS, *words], capture_output=True, text=True, check=True)
    assert done.stdout == f"came out {status}\n"
    assert ("ValueError: in the copy" in done.stderr) == bool(words)
