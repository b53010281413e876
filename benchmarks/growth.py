"""How time grows with each quantity of a run, on tiny random models, and with which power of it: a table in Markdown.

    python benchmarks/growth.py [texts] [depth] [width] [sequence] [cases]

CPU time of one thread, the smallest of three where that is short. The exponent is the slope of log(time) over
log(quantity) through the last three points, where what is paid once weighs least: 1 grows as the quantity does, 2 as
its square. The matrices of a model grow as the square of its width, so 2 is what a pass over them takes there.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from large_store import write_large_run

from editsafety import datasets, reporting
from editsafety.cli.run import stored
from editsafety.lab.lab import Lab
from editsafety.measures import Inputs
from editsafety.measures.perplexity import Perplexity
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.progress import Progress
from editsafety.reporting import ReportPlace
from editsafety.research.speed.workplace import Workplace
from editsafety.runs import folders
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

WIDTH, DEPTH = 64, 4
WORDS = 4096  # as many as the tokenizer of a pocket model has, and some
EDITOR = "ft"  # it needs nothing prepared


@dataclass(frozen=True)
class Growth:
    """Seconds that a piece of work took at several sizes."""

    what: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, what: str, seconds: Mapping[int, float]) -> Growth:
        """From the seconds of each size."""
        return cls(what, tuple(seconds), tuple(seconds.values()))

    @property
    def exponent(self) -> float:
        """The power of the size that the time grows as, at its large end."""
        pairs = list(zip(map(math.log, self.sizes), map(math.log, self.seconds), strict=True))[-3:]
        slope, _ = statistics.linear_regression(*zip(*pairs, strict=True))
        return slope

    @property
    def row(self) -> str:
        """A row of the table."""
        sizes, seconds = ", ".join(f"{n:,}" for n in self.sizes), ", ".join(f"{s:.3g}" for s in self.seconds)
        return f"| {self.what} | {sizes} | {seconds} | {self.exponent:.2f} |"


def main() -> None:
    """Measure the quantities that were named, or all, and print a row as soon as it is there."""
    torch.set_num_threads(1)
    print("| what grows | sizes | CPU seconds | exponent |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as place:
        os.environ["EDITSAFETY_CACHE"] = f"{place}/cache"
        for name in sys.argv[1:] or ROWS:
            for growth in ROWS[name](Path(place)):
                print(growth.row, flush=True)


def of_texts(place: Path) -> Iterator[Growth]:
    """More texts, and longer ones."""
    handle = ModelHandle.load(ModelSpec(shape(place), "cpu"))
    texts = datasets.texts("pocket-world/texts", limit=200)
    yield grow("texts of perplexity", (25, 50, 100, 200), lambda n: perplexity(handle, texts[:n]))
    yield grow("length of 20 texts, in lines", (2, 4, 8, 16), lambda n: perplexity(handle, [" ".join(texts[:n])] * 20))


def of_widths(place: Path) -> Iterator[Growth]:
    """Wider models."""
    return of_models("width", (64, 128, 256, 512), lambda width: shape(place, width=width))


def of_depths(place: Path) -> Iterator[Growth]:
    """Deeper models."""
    return of_models("depth", (4, 8, 16, 32), lambda depth: shape(place, depth=depth))


def of_cases(place: Path) -> Iterator[Growth]:
    """More single edits, and their report."""
    yield Growth.of("single edits", {n: singles(place / f"singles-{n}", n) for n in (10, 20, 40, 80)})
    yield Growth.of("cases of a store, reported in every format", {n: reported(place, n) for n in (2500, 5000, 10_000)})


def of_sequences(place: Path) -> Iterator[Growth]:
    """More edits on top of each other."""
    yield Growth.of("edits on top of each other", {n: course(place / f"course-{n}", n) for n in (10, 20, 40)})


ROWS: Mapping[str, Callable[[Path], Iterator[Growth]]] = {
    "texts": of_texts, "depth": of_depths, "width": of_widths, "sequence": of_sequences, "cases": of_cases,
}  # fmt: skip


def grow(what: str, sizes: Sequence[int], work: Callable[[int], None]) -> Growth:
    """Time a short piece of work at every size."""
    return Growth.of(what, {size: shortest(partial(work, size)) for size in sizes})


def shortest(work: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of the shortest of so many times, behind one that is not counted."""
    work()
    return min(clocked(work) for _ in range(times))


def clocked(work: Callable[[], object]) -> float:
    """CPU seconds of one time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def shape(place: Path, width: int = WIDTH, depth: int = DEPTH) -> str:
    """The name of a random model of that shape."""
    folder = place / f"w{width}-d{depth}"
    folder.mkdir(exist_ok=True)
    config = {"model_type": "gpt2", "n_embd": width, "n_layer": depth, "n_head": 4, "vocab_size": WORDS}
    config |= {"bos_token_id": 0, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"random:{folder}"


def of_models(what: str, sizes: Sequence[int], name: Callable[[int], str]) -> Iterator[Growth]:
    """An edit of ROME, and the perplexity of the model, as its shape grows."""
    edits, texts = {}, {}
    rows = datasets.texts("pocket-world/texts", limit=20)
    for size in sizes:
        work = Workplace.at(ModelSpec(name(size), "cpu"), Progress.quiet())
        edits[size] = shortest(partial(work.editor("rome").edit, work.requests[:1]))
        texts[size] = shortest(partial(perplexity, work.handle, rows))
    yield Growth.of(f"{what}: an edit of ROME", edits)
    yield Growth.of(f"{what}: perplexity of 20 texts", texts)


def perplexity(handle: ModelHandle, texts: Sequence[str]) -> None:
    """Read texts, whatever was kept of them."""
    with handle.engine.switched_off():
        Perplexity()(handle, Inputs(texts=texts))


def opened(folder: Path, **more: Any) -> tuple[Lab, RunPlan]:
    """A lab on the smallest model, which is loaded and measured unedited, and the run that it is at."""
    asked = Settings(
        (shape(folder.parent),), (EDITOR,), hard="pocket-neo/hardcf", normal="pocket-world/normal", device="cpu",
        texts_from="pocket-world/texts", texts=20, controls=0, probe=("none",), keep_going=True, **more,
    )  # fmt: skip
    plan = RunPlan.of(asked)
    folders.begin(folder, plan).release()
    lab = Lab(plan, Store(folder / folders.STORE), Progress.quiet())
    lab.tools.ready(*plan.cases[0].block)  # what is paid once is paid
    return lab, plan


def singles(folder: Path, count: int) -> float:
    """So many single edits: computed, measured, proved, stored. The first that is asked for brings its whole block."""
    lab, plan = opened(folder, limit=count // 2)
    if len(plan.cases) != count:
        raise SystemExit(f"{len(plan.cases)} cases were laid out, {count} were to be timed")
    return clocked(partial(lab.record, plan.cases[0]))


def course(folder: Path, count: int) -> float:
    """So many edits on top of each other, measured after every tenth."""
    lab, plan = opened(folder, limit=count, edits=count)
    walked = next(one for one in plan.courses if one.stream == "normal" and one.schedule.kind == "sequential")
    return clocked(partial(lab.record, walked))


def reported(place: Path, cases: int) -> float:
    """A store of so many copies of the largest of the runs above: read, judged, written in every format."""
    folder = place / f"store-{cases}"
    write_large_run(place / "singles-20", cases, folder)
    return clocked(lambda: reporting.write(stored(folder), folder, ReportPlace("suites")))


if __name__ == "__main__":
    main()
