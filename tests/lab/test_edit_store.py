"""Kept edits: what comes back is bit for bit what was computed, or it is computed again."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety import tensor_files
from editsafety.edits.edit import Delta, Edit, LowRank, Replace, Sidecar
from editsafety.edits.session import EditSession
from editsafety.errors import StoreError
from editsafety.lab import edit_store
from editsafety.lab.attempt import Made, compute
from editsafety.lab.edit_store import EditStore, edit_key
from editsafety.model.handle import ModelHandle
from editsafety.runs.case_record import Cost
from tests import tiny
from tests.lab.walking import FACTS, PRINTS, REQUESTS, bench_of, real

KEY = edit_key("shared", REQUESTS[:1])
ROOT = Path(__file__).parent.parent.parent


class Turns(Sidecar):
    """Multiplies its target's output by a matrix, as it lies in memory."""

    kind = "turns"

    def __init__(self, target: str, matrix: Tensor) -> None:
        self.target, self.matrix = target, matrix

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        if isinstance(output, tuple):  # what a block gives in transformers 4
            return (output[0] @ self.matrix, *output[1:])
        return output @ self.matrix

    def tensors(self) -> Mapping[str, Tensor]:
        return {"matrix": self.matrix}

    def settings(self) -> Mapping[str, Any]:
        return {"seen": True}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        assert settings == {"seen": True}
        return cls(target, tensors["matrix"])


KNOWN = {Turns.kind: Turns}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(handle: ModelHandle, *deltas: Delta, **more: Any) -> Made:
    cars, carry = more.pop("sidecars", ()), more.pop("carry", None)
    edit = Edit("mine", ("case-0",), handle.identity, deltas, cars, notes=more.pop("notes", {}), carry=carry)
    return Made(edit, REQUESTS[:1], **more)


def back(store: EditStore, one: Made) -> Made:
    """What comes out after it was put in."""
    store.put(KEY, one)
    found = store.get(KEY, one.requests, KNOWN)
    assert found is not None
    return found


def effect(handle: ModelHandle, edit: Edit) -> float | None:
    """Weights and logits of the edited model, as one number."""
    with EditSession(handle) as session:
        session.apply(edit)
        return PRINTS(handle, 8).value


def same(one: Tensor, other: Tensor) -> bool:
    """Equal bits, of one dtype, lying alike."""
    alike = (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    return alike and tensor_files.digest(one) == tensor_files.digest(other)


def test_an_edit_of_every_kind_comes_back_bit_for_bit(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    site, width = handle.mlp_out(1), tiny.WIDTH
    weight = handle.model.get_parameter(site.parameter).detach()
    kinds: dict[str, Made] = {
        "low rank": made(handle, LowRank(site, drawn(site.d_out, 3), drawn(3, site.d_in, seed=1))),
        "transposed": made(handle, LowRank(site, drawn(3, site.d_out).T, drawn(site.d_in, 3, seed=1).T)),
        "a slice": made(handle, LowRank(site, drawn(site.d_out, 9)[:, ::3], drawn(3, 3 * site.d_in)[:, : site.d_in])),
        "in double": made(handle, LowRank(site, drawn(site.d_out, 1).double(), drawn(1, site.d_in))),
        "replaced": made(handle, Replace(site.parameter, weight * 1.5), Replace(handle.mlp_out(0).parameter, weight)),
        "not finite": made(handle, Replace(site.parameter, torch.full_like(weight, math.nan))),
        "sidecar": made(handle, sidecars=(Turns("transformer.h.1", drawn(width, width)),)),
        "sidecar, transposed": made(handle, sidecars=(Turns("transformer.h.1", drawn(width, width).T),)),
        "carry": made(handle, carry={"keys": drawn(5, 3).T, "count": torch.tensor(7), "none": torch.zeros(0, 4)}),
        "empty carry": made(handle, carry={}),
        "nothing": made(handle),
    }
    for kind, one in kinds.items():
        found = back(EditStore(tmp_path / kind), one)
        assert found.edit.id == one.edit.id, kind
        assert effect(handle, found.edit) == effect(handle, one.edit), kind
        assert all(same(tensor, found.edit.tensors()[name]) for name, tensor in one.edit.tensors().items()), kind
        assert (found.edit.carry is None) == (one.edit.carry is None), kind
        carried = found.edit.carry or {}
        assert carried.keys() == (one.edit.carry or {}).keys(), kind
        assert all(same(tensor, carried[name]) for name, tensor in (one.edit.carry or {}).items()), kind


@pytest.mark.parametrize(
    "name",
    [
        *("rome", "ft", "memit", "alphaedit", "grace", "prune(rome)", "mend"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("wise", "ike", "serac", "lora", "emmet", "kn")),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_an_edit_of_a_shipped_editor_has_the_same_effect_and_is_gone_on_from_alike(
    name: str, count: int, tmp_path: Path
) -> None:
    bench = bench_of("gpt2")
    along = real(name, bench, tmp_path)
    if count > 1 and not along.traits.batch:
        pytest.skip(f"{name} edits one fact at a time")
    one = compute(bench.handle, along, FACTS[:count])
    store = EditStore(tmp_path / "edits")
    store.put(KEY, one)
    found = store.get(KEY, one.requests, along.sidecars)
    assert found is not None
    assert (found.edit.id, effect(bench.handle, found.edit)) == (one.edit.id, effect(bench.handle, one.edit))
    assert (found.cost, found.notes, found.requests) == (one.cost, one.notes, one.requests)
    if not along.traits.sequential:
        return
    after: list[str] = []
    for first in (one.edit, found.edit):
        with EditSession(bench.handle) as session:
            session.apply(first)
            after.append(along.edit(FACTS[3:4], first.carry).id if first.carry else along.edit(FACTS[3:4]).id)
    assert after[0] == after[1]


def test_what_it_cost_what_was_left_and_any_notes_come_back(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    notes: dict[str, Any] = {"ratio": math.inf, "loss": 0.1, "first_token": True, "words": "a b", "of": [1, 2]}
    one = made(handle, notes=notes, cost=Cost(edit=0.25, edit_bytes=12), leftovers=("1 hook",))
    found = back(EditStore(tmp_path), one)
    assert (found.cost, found.leftovers) == (one.cost, one.leftovers)
    assert found.notes == {**notes, "ratio": "inf", "of": "[1, 2]"}  # as a record spells them


@pytest.mark.parametrize("file", ["", ".carry"])
@pytest.mark.parametrize("harm", ["a byte", "half of it", "gone", "something else"])
def test_a_damaged_file_is_as_if_nothing_were_kept(tmp_path: Path, file: str, harm: str) -> None:
    handle, store = tiny.handle("gpt2"), EditStore(tmp_path)
    one = made(handle, tiny.low_rank(handle.mlp_out(1)), carry={"keys": drawn(3, 3)})
    store.put(KEY, one)
    path = tmp_path / f"{KEY[:32]}{file}.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "a byte":
        data[-3] ^= 1
        path.write_bytes(data)
    elif harm == "half of it":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "something else":
        path.write_bytes(b"hello")
    else:
        path.unlink()
    assert store.get(KEY, one.requests, KNOWN) is None
    assert effect(handle, back(store, one).edit) == effect(handle, one.edit)  # and it can be put there again


def test_a_sidecar_that_the_editor_does_not_know_is_computed_again(tmp_path: Path) -> None:
    handle, store = tiny.handle("gpt2"), EditStore(tmp_path)
    one = made(handle, sidecars=(Turns("transformer.h.1", torch.eye(tiny.WIDTH)),))
    store.put(KEY, one)
    assert store.get(KEY, one.requests, {}) is None


def test_what_is_too_large_or_overlaps_itself_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, store = tiny.handle("gpt2"), EditStore(tmp_path)
    site = handle.mlp_out(1)
    store.put(KEY, made(handle, LowRank(site, torch.ones(1, 1).expand(site.d_out, 1), torch.ones(1, site.d_in))))
    assert store.get(KEY, (), {}) is None
    one = made(handle, tiny.low_rank(site), carry={"keys": drawn(10)})
    size = 4 * (site.d_out + site.d_in + 10)
    monkeypatch.setattr(edit_store, "LARGEST", size - 1)
    store.put(KEY, one)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(edit_store, "LARGEST", size)
    assert back(store, one).edit.id == one.edit.id


def test_the_key_is_of_everything_that_can_change_the_edit() -> None:
    keys = [
        edit_key("shared", REQUESTS[:2]),
        edit_key("other", REQUESTS[:2]),
        edit_key("shared", REQUESTS[:1]),
        edit_key("shared", REQUESTS[1::-1]),
        edit_key("shared", (replace(REQUESTS[0], target_new="baker"), REQUESTS[1])),
    ]
    assert len(set(keys)) == len(keys)


def test_two_workers_share_what_one_of_them_computed(tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from editsafety.lab.edit_store import EditStore
        from tests import tiny
        from tests.lab.test_edit_store import KEY, drawn, made
        handle = tiny.handle("gpt2")
        one = made(handle, tiny.low_rank(handle.mlp_out(1)), carry={{"k": drawn(2, 2)}})
        EditStore(Path({str(tmp_path)!r})).put(KEY, one)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)
    handle = tiny.handle("gpt2")
    one = made(handle, tiny.low_rank(handle.mlp_out(1)))
    found = EditStore(tmp_path).get(KEY, one.requests, {})
    assert found is not None
    assert found.edit.id == one.edit.id
    assert torch.equal((found.edit.carry or {})["k"], drawn(2, 2))


def test_a_full_disk_is_said_and_the_end_of_a_run_leaves_nothing(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"an edit cannot be kept .* Make room, and run again"):
        EditStore(tmp_path / "file").put(KEY, made(handle))
    store = EditStore(tmp_path / "edits")
    store.put(KEY, made(handle))
    store.clear()
    assert not (tmp_path / "edits").exists()
    store.clear()  # nothing there is fine
