"""Figures that are found inside one process: restoring, order, false alarms."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from editsafety.edits.baseline import Baseline
from editsafety.edits.edit import Delta, Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab import single
from editsafety.lab.attempt import Made, compute
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from tests.reliability.trials import Result

MODEL = "pocket-neo"
ROUND = 100  # edits of one trial of `restore`
ORDERED = ("rome", "memit", "ft", "grace")
BATCHES, THREADS = (1, 2, 3, 5, 8, 16, 32), (1, 2)
ODD = (0.0, 1e-9, 1e-3, 1.0, 1e6, 1e30, float("inf"), float("nan"))


def every_byte(model: nn.Module) -> str:
    """sha256 of every parameter and buffer, name and bytes: by hand, apart from the product's own seals."""
    print_ = hashlib.sha256()
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        print_.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        print_.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return print_.hexdigest()


@cache
def untouched() -> tuple[ModelHandle, Baseline, str]:
    """The model that thousands of edits are made on, what it did and its bytes before the first."""
    handle = ModelHandle.load(MODEL)
    return handle, Baseline.of(handle), every_byte(handle.model)


def restore(number: int) -> Result:
    """A hundred edits, each alone: random sites, ranks and sizes, a replaced parameter now and then, and no numbers."""
    handle, baseline, before = untouched()
    draw = random.Random(number)
    pointers = [parameter.data_ptr() for parameter in handle.model.parameters()]
    different = 0
    for _ in range(ROUND):
        with EditSession(handle, baseline=baseline) as session:
            for edit in _some_edits(handle, draw):
                session.apply(edit)
            if draw.random() < 0.1:
                handle.logits(handle.batch([handle.ids("What is left of it?")]))
        different += every_byte(handle.model) != before
    moved = pointers != [parameter.data_ptr() for parameter in handle.model.parameters()]
    return {"edits": ROUND, "different": different, "moved": moved, "sha256": every_byte(handle.model)[:16]}


def _some_edits(handle: ModelHandle, draw: random.Random) -> Iterator[Edit]:
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        yield Edit(
            "random", ("r",), handle.identity, tuple(_delta(handle, draw) for _ in range(draw.choice([1, 1, 3])))
        )


def _delta(handle: ModelHandle, draw: random.Random) -> Delta:
    made = torch.Generator().manual_seed(draw.getrandbits(48))
    size = draw.choice(ODD)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made) * size

    if draw.random() < 0.2:
        name, parameter = draw.choice(list(handle.model.named_parameters()))
        return Replace(name, parameter.detach() + noise(*parameter.shape))
    site, rank = handle.mlp_out(draw.randrange(handle.layers)), draw.choice([1, 1, 4])
    return LowRank(site, noise(site.d_out, rank), torch.randn(rank, site.d_in, generator=made))


@cache
def laboratory(*editors: str) -> Lab:
    """A lab on the pocket model with a few requests of either kind."""
    plan = RunPlan.of(Settings((MODEL,), editors, limit=3, texts=50, prepare=True, device="cpu"))
    return Lab(plan, Store(Path(tempfile.mkdtemp()) / "store.sqlite"), Progress.quiet())


@cache
def first_ids() -> dict[str, str]:
    """The edits of every case, computed in plan order."""
    lab = laboratory(*ORDERED)
    return {case.id: lab.edit(case.block, case.requests).edit.id for case in lab.plan.cases}


def order(number: int) -> Result:
    """Every edit once more in another order, those of all editors mixed, by editors that go on living."""
    lab, expected = laboratory(*ORDERED), first_ids()
    cases = list(lab.plan.cases)
    random.Random(number).shuffle(cases)
    handle = lab.tools.bench(MODEL).handle
    found = {case.id: compute(handle, lab.tools.ready(*case.block), case.requests).edit.id for case in cases}
    return {"edits": len(found), "different": sorted(name for name in found if found[name] != expected[name])}


def alarms(number: int) -> Result:
    """The unedited model measured again as if edited, with other batches on other threads, and judged by default."""
    lab = laboratory("noop")
    bench, editor = lab.tools.bench(MODEL), lab.tools.ready(MODEL, "noop")
    case = lab.plan.cases[number % len(lab.plan.cases)]
    threads, batch = torch.get_num_threads(), bench.batch_size
    bench.unedited(case.requests)  # as a run measures it, once
    try:
        bench.batch_size = BATCHES[number % len(BATCHES)]
        torch.set_num_threads(THREADS[number // len(BATCHES) % len(THREADS)])
        bench.baseline = Baseline.of(bench.handle)  # sums round by threads: what is bound to bits has to know of them

        def make(requests: object) -> Made:
            return compute(bench.handle, editor, case.requests)

        record = single.run(bench, "noop", case, make)
        judged = judge_case(Policy.read("default"), record)
    finally:
        bench.batch_size = batch
        torch.set_num_threads(threads)
        bench.baseline = Baseline.of(bench.handle)
    raised = [f"{check.name} {check.verdict.value}" for check in judged.checks if check.verdict is not Verdict.PASS]
    kept = record.after["locality"].value
    return {
        "ratio": record.ratios[-1],
        "locality": kept,
        "alarms": [one for one in raised if one != f"changes_something {Verdict.NO_OP.value}"],
        "no_op": judged.verdict is Verdict.NO_OP,
    }
