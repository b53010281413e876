"""Editors of one family share v*: the edit is the same to the bit, whoever sought it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.editors import Editor
from editsafety.edits.session import EditSession
from editsafety.errors import UndoError
from editsafety.lab.attempt import Made, compute
from tests import tiny
from tests.editors.conftest import Make
from tests.lab.walking import Push, bench_of, editor

ROMES = ("rome", "c_rome", "r_rome", "p_rome", "prune(rome)", "rect(c_rome)")
MEMITS = ("memit", "emmet", "alphaedit", "rect(memit)", "prune(alphaedit)")
BATCH = (
    tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker"),
    tiny.request("case-1", subject="Mirel", target_new="farmer"),
    tiny.request("case-2", prompt="{} was born in the city of", subject="Toren", target_new="Ostrin"),
)


@pytest.mark.parametrize(("names", "size"), [(ROMES, 1), (MEMITS, 1), (MEMITS, 3)], ids=["rome", "memit", "batch"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_one_search_serves_the_whole_family(names: tuple[str, ...], size: int, family: str, make: Make) -> None:
    handle = tiny.handle(family)
    requests = BATCH[:size]

    def made(editor: Editor) -> Made:
        return compute(handle, editor, requests)

    known = [made(make(name, handle)) for name in names]
    anew = []
    for name in names:
        with handle.engine.afresh():
            anew.append(made(make(name, handle)))
    assert [one.edit.id for one in known] == [one.edit.id for one in anew]
    assert [one.notes for one in known] == [one.notes for one in anew]
    assert [one.cost.reused > 0 for one in known] == [False] + [True] * (len(names) - 1)
    assert not any(one.cost.reused for one in anew)
    assert all(one.cost.edit > one.cost.reused for one in known if one.cost.edit is not None)


def test_the_second_layer_is_sought_on_the_model_that_carries_the_first(make: Make) -> None:
    handle = tiny.handle("gpt2")
    names = ("rome", "c_rome")
    known = [compute(handle, make(name, handle, layers=[0, 1]), BATCH[:1]) for name in names]
    anew = []
    for name in names:
        with handle.engine.afresh():
            anew.append(compute(handle, make(name, handle, layers=[0, 1]), BATCH[:1]))
    assert [one.edit.id for one in known] == [one.edit.id for one in anew]
    assert known[1].cost.reused > 0


@pytest.mark.parametrize("names", [("rome", "c_rome"), ("memit", "alphaedit")])
def test_later_edits_of_a_sequence_are_sought_on_the_model_as_it_is(names: tuple[str, ...], make: Make) -> None:
    handle = tiny.handle("gpt2")

    def course(name: str) -> list[Made]:
        made: list[Made] = []
        editor = make(name, handle)
        with EditSession(handle) as session:
            for request in BATCH:
                carry = made[-1].edit.carry if made else None
                made.append(compute(handle, editor, [request], carry))
                session.apply(made[-1].edit)
        return made

    course(names[0])
    known = course(names[1])
    with handle.engine.switched_off():
        plain = course(names[1])
    assert [one.edit.id for one in known] == [one.edit.id for one in plain]
    assert [one.cost.reused > 0 for one in known] == [True, False, False]


def test_an_editor_that_writes_by_itself_is_served_nothing_stale_and_its_case_fails(make: Make, tmp_path: Path) -> None:
    bench = bench_of()
    rome = make("rome", bench.handle)
    weight = bench.handle.model.get_parameter(bench.handle.mlp_out(0).parameter)
    seen: list[str] = []

    class Sneaks(Push):
        """Writes into a weight in place between two edits, past every session."""

        def edit(self, requests, carry=None):
            seen.append(rome.edit(requests).id)
            weight.data.mul_(1.1)
            seen.append(rome.edit(requests).id)
            return super().edit(requests, carry)

    with pytest.raises(UndoError, match=r"transformer\.h\.0\.mlp\.c_proj\.weight differs"):
        compute(bench.handle, editor(Sneaks, bench, tmp_path), BATCH[:1], baseline=bench.baseline, prove="in doubt")
    bench.repair()
    assert bench.handle.engine.kept == {}
    with bench.handle.engine.switched_off():
        expected = [rome.edit(BATCH[:1]).id]
        with torch.no_grad():
            weight.mul_(1.1)
        expected.append(rome.edit(BATCH[:1]).id)
    assert seen == expected
