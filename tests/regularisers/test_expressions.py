"""`rect(memit)`: an editor made around another one, whatever that is, named in one way everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety import discovery, editors
from editsafety.errors import EditorError, UnknownNameError, UsageError
from editsafety.names import label, parts, tag
from tests import tiny
from tests.regularisers.conftest import REQUESTS, Make, weights


@pytest.mark.parametrize(
    ("editor", "split", "short", "tagged"),
    [
        ("rome", ((), "rome"), "rome", "rome"),
        ("rect(memit)", (("rect",), "memit"), "rect(memit)", "rect.memit"),
        ("rect(prune(ft))", (("rect", "prune"), "ft"), "rect(prune(ft))", "rect.prune.ft"),
        (" rect( prune (ft) ) ", (("rect", "prune"), "ft"), "rect(prune(ft))", "rect.prune.ft"),
        ("rect(path/to/my.py:Mine)", (("rect",), "path/to/my.py:Mine"), "rect(Mine)", "rect.Mine"),
        ("a (1)/my.py:Mine", ((), "a (1)/my.py:Mine"), "Mine", "Mine"),
        ("rect(a (1)/my.py:Mine)", (("rect",), "a (1)/my.py:Mine"), "rect(Mine)", "rect.Mine"),
        ("x (2)/r.py:Rein(a (1)/my.py:Mine)", (("x (2)/r.py:Rein",), "a (1)/my.py:Mine"), "Rein(Mine)", "Rein.Mine"),
    ],
)
def test_an_expression_is_taken_apart_and_shortened(
    editor: str, split: tuple[tuple[str, ...], str], short: str, tagged: str
) -> None:
    assert parts(editor) == split
    assert label(editor) == short
    assert label(short) == short
    assert tag(editor) == tag(short) == tagged


@pytest.mark.parametrize("editor", ["rect()", "rect( )", "(rome)", "rect(rome", "rect(rome))", "rect)", "()"])
def test_parentheses_that_do_not_match_or_hold_nothing_are_refused(editor: str) -> None:
    with pytest.raises(UsageError, match=r"Write it like rect\(memit\)"):
        discovery.expect_editor(editor)


@pytest.mark.parametrize(
    ("editor", "message"),
    [
        ("rect", r"'rect' is no editor: it regularises another one, as in rect\(memit\)"),
        ("prune(rect)", r"as in prune\(rect\(memit\)\)"),
        ("rekt(rome)", r"no regulariser named 'rekt'; did you mean 'rect'\? Known regularisers: prune, rect\."),
        ("rome(rect)", "no regulariser named 'rome'"),
        ("rect(roem)", r"no editor named 'roem'; did you mean 'rome'\? Known editors: "),
        ("rect(no/such.py:Mine)", r"no/such.py: there is no such file \(needed for 'no/such.py:Mine'\)"),
    ],
)
def test_names_that_cannot_be_meant_are_refused_with_the_known_ones(editor: str, message: str) -> None:
    for ask in (discovery.expect_editor, editors.load):
        with pytest.raises(UsageError, match=message):
            ask(editor)


def test_a_file_may_shadow_no_name_but_an_editor_called_like_a_regulariser_is_an_editor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"editors": {"both", "rome"}, "regularisers": {"both"}}
    monkeypatch.setattr(discovery, "_members", lambda family: known[family])
    discovery.expect_editor("both")
    discovery.expect_editor("both(both)")
    with pytest.raises(UnknownNameError, match="regulariser"):
        discovery.expect_editor("rome(both)")


def test_the_class_has_the_inner_editor_s_numbers_folder_and_traits() -> None:
    kind, rome = editors.load("rect(c_rome)"), editors.load("c_rome")
    assert set(kind.Hparams.model_fields) == {*rome.Hparams.model_fields, "rect_keep"}
    assert kind.folder == "rome"
    assert kind.overrides == rome.overrides
    assert kind.traits.batch == rome.traits.batch
    assert rome.traits.paper in kind.traits.paper
    assert "2401.04700" in kind.traits.paper
    assert editors.load("rect(ft)").folder == "ft"
    assert editors.load("rect(prune(ft))").folder == "ft"
    assert {"rect_keep", "prune_base", "lr"} < set(editors.load("rect(prune(ft))").Hparams.model_fields)


def test_shipped_numbers_of_the_inner_editor_are_used_with_its_variant_s_overrides() -> None:
    found, inner = editors.read_hparams("rect(c_rome)", "gpt2-xl"), editors.read_hparams("c_rome", "gpt2-xl")
    values = found.model_dump()
    assert values.pop("rect_keep") == 0.4
    assert values == inner.model_dump()


def test_a_file_with_the_regulariser_s_numbers_alone_lies_on_top_of_the_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "keep.yaml"
    path.write_text("rect_keep: 0.2\nprune_base: 1.2\n")
    found = editors.read_hparams("rect(prune(rome))", "gpt2-xl", path).model_dump()
    assert (found.pop("rect_keep"), found.pop("prune_base")) == (0.2, 1.2)
    assert found == editors.read_hparams("rome", "gpt2-xl").model_dump()
    with pytest.raises(UsageError, match="unknown hyperparameter 'prune_base'"):
        editors.read_hparams("rect(rome)", "gpt2-xl", path)
    path.write_text("rect_keep: 0.2\nlayers: [3]\n")
    with pytest.raises(UsageError, match="is missing"):  # a file with more than its numbers has to have them all
        editors.read_hparams("rect(rome)", "gpt2-xl", path)
    path.write_text("rect_keep: 0.2\n")
    with pytest.raises(UsageError, match="is missing"):
        editors.read_hparams("rect(rome)", "no-such-model", path)


def test_results_belong_to_the_code_of_both(nudge: str) -> None:
    name = f"rect({nudge}:Nudge)"
    first = editors.code_version(name)
    assert len({first, editors.code_version(f"{nudge}:Nudge"), editors.code_version(f"prune({nudge}:Nudge)")}) == 3
    assert editors.code_version(name) == first
    with Path(nudge).open("a") as file:
        file.write("# another line\n")
    assert editors.code_version(name) != first
    lineage = [kind.__name__ for kind in editors.load("rect(prune(c_rome))").lineage()]
    assert {"Rect", "Prune", "Regulariser", "RankOneEditor", "CRome"} <= set(lineage)


def test_what_runs_beside_the_model_has_no_delta_to_regularise(nudge: str, make: Make) -> None:
    with pytest.raises(UsageError, match=r"rect reins in a change of weights, and Beside makes none"):
        editors.load(f"rect({nudge}:Beside)")
    with pytest.raises(EditorError, match=r"ReturnsNone.edit\(\) returned NoneType, expected an editsafety Edit"):
        make(f"rect({nudge}:ReturnsNone)", tiny.handle()).edit([REQUESTS[0]])


def test_the_same_regulariser_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"rect cannot be put around .* has rect_keep itself\. Is rect there twice\?"):
        editors.load("rect(prune(rect(ft)))")


def test_what_is_no_regulariser_is_refused(nudge: str) -> None:
    with pytest.raises(UsageError, match=r"expected a subclass of editsafety\.regularisers\.Regulariser"):
        editors.load(f"{nudge}:Nudge(rome)")


def test_regularisers_stand_around_each_other(make: Make) -> None:
    handle = tiny.handle()
    both = make("rect(prune(rome))", handle).edit([REQUESTS[0]])
    assert both.editor == "rect(prune(rome))"
    assert {"rect_kept", "prune_restrained", "denominator"} <= set(both.notes)
    assert both.carry is not None
    assert any(name.startswith("start.") for name in both.carry)
    other_way = make("prune(rect(rome))", handle).edit([REQUESTS[0]])
    one = make("rect(rome)", handle).edit([REQUESTS[0]])
    name = handle.mlp_out(1).parameter
    if not other_way.notes["prune_restrained"]:
        assert weights(handle, other_way)[name].equal(weights(handle, one)[name])


def test_a_regulariser_of_ones_own_is_one_file(tmp_path: Path, make: Make) -> None:
    place = tmp_path / "halved.py"
    place.write_text(
        "from dataclasses import replace\n"
        "from editsafety.edits.edit import Replace\n"
        "from editsafety.hyperparameters import Hparams\n"
        "from editsafety.regularisers import Regulariser, changes\n\n\n"
        "class HalvedHparams(Hparams):\n    halved_by: float = 2.0\n\n\n"
        "class Halved(Regulariser):\n    Own = HalvedHparams\n\n"
        "    def edit(self, requests, carry=None):\n"
        "        made = self.inner_edit(requests, carry)\n"
        "        found = changes(self.handle, made)\n"
        "        by = self.hparams.halved_by\n"
        "        deltas = tuple(Replace(n, c.with_delta(c.delta / by)) for n, c in found.items())\n"
        "        return replace(made, editor=self.name, deltas=deltas)\n"
    )
    handle = tiny.handle()
    edit = make(f"{place}:Halved(ft)", handle).edit([REQUESTS[0]])
    assert edit.editor == "Halved(ft)"
    name = handle.mlp_out(1).parameter
    before = handle.model.get_parameter(name).detach()
    plain = weights(handle, make("ft", handle).edit([REQUESTS[0]]))[name]
    found = weights(handle, edit)[name]
    assert torch.allclose(found - before, (plain - before) / 2, atol=1e-6)


def test_an_unprepared_inner_editor_is_named_with_a_command_that_a_shell_takes(tmp_path: Path) -> None:
    from editsafety.errors import NotPreparedError

    assert str(NotPreparedError("rect(rome)", "my model", "C")).endswith(
        "editsafety prepare --model 'my model' --editor 'rect(rome)'"
    )
