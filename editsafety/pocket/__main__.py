"""Command line: `python -m editsafety.pocket build pocket-neo --out data/pocket-neo`, or `data`, or `check`."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from editsafety.errors import EditSafetyError, UnknownNameError
from editsafety.pocket.spec import SPECS

if TYPE_CHECKING:
    from editsafety.pocket.train import Progress

PLAIN_EVERY = 100  # steps between two plain lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        {"build": _build, "data": _data, "check": _check}[options.command](options)
    except EditSafetyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m editsafety.pocket", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train a pocket model from this repository alone")
    build.add_argument("name", help=f"which model: {', '.join(SPECS)}")
    build.add_argument("--out", type=Path, required=True, help="folder for the model")
    build.add_argument("--seed", type=int, default=0, help="draws weights and batches (default 0, the shipped model)")
    build.add_argument("--threads", type=int, default=None, help="threads to train with (default: all cores)")
    data = commands.add_parser("data", help="write the world's JSON lines: pool, normal, texts, recall")
    data.add_argument("--out", type=Path, required=True, help="folder for the files")
    check = commands.add_parser("check", help="measure recall and perplexity of a pocket model")
    check.add_argument("folder", type=Path, help="a model folder, such as data/pocket-neo")
    return parser


def _build(options: argparse.Namespace) -> None:
    if options.name not in SPECS:
        raise UnknownNameError("pocket model", options.name, SPECS)
    from editsafety.pocket.build import build

    started = time.monotonic()
    with _progress(options.name) as progress:
        build(options.out, spec=SPECS[options.name], seed=options.seed, threads=options.threads, progress=progress)
    _say(f"{options.name} written to {options.out} after {time.monotonic() - started:.0f} s")
    _report(options.out)


def _data(options: argparse.Namespace) -> None:
    from editsafety.pocket.requests import write_data
    from editsafety.pocket.world import make_world

    for path in write_data(make_world(), options.out):
        _say(f"{path}: {len(path.read_text(encoding='utf-8').splitlines())} rows")


def _check(options: argparse.Namespace) -> None:
    _report(options.folder)


def _report(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from editsafety.pocket.check import figures
    from editsafety.pocket.world import make_world

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, value in figures(model, tokenizer, make_world()).items():
        _say(f"{name:32} {value:.4f}")


def _say(line: str) -> None:
    """One line on standard output, at once: a build is watched through a pipe, too."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def _progress(name: str) -> Iterator["Progress"]:
    """A bar on a terminal, plain lines otherwise."""
    if sys.stdout.isatty():
        with _bar(name) as progress:
            yield progress
    else:
        yield _lines(name)


@contextmanager
def _bar(name: str) -> Iterator["Progress"]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}  loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns) as bar:
        task = bar.add_task(name, total=None, rate="", loss="")
        done_before = -1

        def show(step: int, steps: int, loss: float) -> None:
            nonlocal done_before
            if done_before < 0:
                done_before = step - 1  # a resumed run must not count what an earlier one did
            rate = (step - done_before) / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=step, total=steps, rate=f"{rate:.1f} steps/s", loss=f"{loss:.3f}")

        yield show


def _lines(name: str) -> "Progress":
    started = time.monotonic()
    done_before = -1

    def show(step: int, steps: int, loss: float) -> None:
        nonlocal done_before
        if done_before < 0:
            done_before = step - 1
        if step % PLAIN_EVERY == 0 or step == steps:
            rate = (step - done_before) / max(time.monotonic() - started, 1e-9)
            left = (steps - step) / rate
            _say(f"{name}: step {step}/{steps}, loss {loss:.3f}, {rate:.1f} steps/s, {left:.0f} s left")

    return show


if __name__ == "__main__":
    sys.exit(main())
