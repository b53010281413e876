"""Edit as data: saved and loaded it has the same id and the same effect; what does not fit is refused."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety import tensor_files
from editsafety.edits.edit import Edit, LowRank, Replace, Sidecar, nothing
from editsafety.edits.session import EditSession
from editsafety.errors import EditError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout, Site
from tests import tiny

SITE = Site("some.module", Layout.IN_OUT, d_out=4, d_in=6)


class Adder(Sidecar):
    kind = "adder"

    def __init__(self, target: str, vector: Tensor, scale: float) -> None:
        self.target, self.vector, self.scale = target, vector, scale

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output + (self.vector * self.scale).to(output.dtype)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"vector": self.vector}

    def settings(self) -> Mapping[str, Any]:
        return {"scale": self.scale}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        return cls(target, tensors["vector"], settings["scale"])


def full_edit(handle: ModelHandle) -> Edit:
    """One of everything."""
    site = handle.mlp_out(1)
    norm = next(n for n, p in handle.model.named_parameters() if p.shape == (tiny.WIDTH,) and n.endswith(".weight"))
    return Edit(
        editor="test",
        request_ids=("a", "b"),
        made_for=handle.identity,
        deltas=(tiny.low_rank(site, rank=2), Replace(norm, torch.rand(tiny.WIDTH).to(torch.bfloat16))),
        sidecars=tuple(Adder(handle.mlp_out(0).module, torch.randn(tiny.WIDTH), 0.5 + i) for i in range(11)),
        on_top_of=("0" * 64,),
        notes={"loss": 0.25, "stopped": True, "why": "enough"},
        carry={"cache": torch.ones(3)},
    )


def logits_with(handle: ModelHandle, edit: Edit) -> Tensor:
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        return handle.logits(handle.batch([handle.ids("Mirel works as a")]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_saved_and_loaded_edit_has_the_same_id_and_the_same_effect(tmp_path: Path, family: str, dtype: str) -> None:
    handle = tiny.handle(family, dtype=dtype)
    edit = full_edit(handle)
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors", {"adder": Adder})
    assert loaded.id == edit.id
    assert torch.equal(logits_with(handle, loaded), logits_with(handle, edit))
    for name in ("editor", "request_ids", "made_for", "on_top_of", "notes", "parameters"):
        assert getattr(loaded, name) == getattr(edit, name)
    assert loaded.carry is None  # what the next edit of a sequence needs is not part of the change


def test_an_id_says_what_an_edit_does_and_nothing_else() -> None:
    one, other = torch.ones(4, 1), torch.ones(1, 6)
    edit = Edit("rome", ("a",), "base", (LowRank(SITE, one, other),))
    same = Edit("memit", ("b",), "base", (LowRank(SITE, one.clone(), other.clone()),), notes={"loss": 1.0})
    assert edit.id == same.id
    turned = Site("some.module", Layout.OUT_IN, 4, 6)
    others = [
        Edit("rome", ("a",), "other base", edit.deltas),
        Edit("rome", ("a",), "base", (LowRank(turned, one, other),)),
        Edit("rome", ("a",), "base", (LowRank(SITE, -one, other),)),
        Edit("rome", ("a",), "base", (LowRank(SITE, one.bfloat16(), other),)),
        Edit("rome", ("a",), "base", (*edit.deltas, *edit.deltas)),
        Edit("rome", ("a",), "base", (Replace(SITE.parameter, one),)),
        Edit("rome", ("a",), "base", edit.deltas, (Adder("some", one, 1.0),)),
        Edit("rome", ("a",), "base", edit.deltas, (Adder("some", one, 2.0),)),
        Edit("rome", ("a",), "base", edit.deltas, (Adder("elsewhere", one, 1.0),)),
        nothing("rome", ["a"], "base"),
    ]
    assert len({edit.id, *(each.id for each in others)}) == len(others) + 1


def test_deltas_that_share_a_tensor_can_be_saved(tmp_path: Path) -> None:
    left, right = torch.randn(4, 1), torch.randn(1, 6)
    edit = Edit("test", ("a",), "base", tuple(LowRank(Site(f"m{i}", Layout.OUT_IN, 4, 6), left, right) for i in (0, 1)))
    edit.save(tmp_path / "x")
    assert Edit.load(tmp_path / "x").id == edit.id


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_notes_that_are_not_finite_are_saved_by_name(tmp_path: Path, value: float) -> None:
    Edit("test", ("a",), "base", notes={"loss": value, "fine": 1.5}).save(tmp_path / "x")
    assert Edit.load(tmp_path / "x").notes == {"loss": str(value), "fine": 1.5}


def test_the_parameters_are_named_once_and_sorted() -> None:
    delta = LowRank(SITE, torch.zeros(4, 1), torch.zeros(1, 6))
    assert Edit("t", ("a",), "b", (Replace("z", torch.zeros(1)), delta, delta)).parameters == (
        "some.module.weight",
        "z",
    )


# --------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("factors", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_delta_is_summed_in_float32_or_wider_and_rounded_once(
    layout: Layout, weights: torch.dtype, factors: torch.dtype
) -> None:
    """Expected: the same sum in float64, rounded once; float32 may differ from it by one unit in the last place."""
    site = Site("m", layout, 4, 6)
    left, right = torch.randn(4, 2).to(factors), torch.randn(2, 6).to(factors)
    weight = site.stored(torch.randn(4, 6)).to(weights)
    found = LowRank(site, left, right).on(weight)
    expected = weight.double() + site.stored(left.double() @ right.double())
    assert found.dtype == weights
    assert found.shape == weight.shape
    torch.testing.assert_close(
        found.double(), expected.to(weights).double(), rtol=2 * torch.finfo(weights).eps, atol=1e-6
    )


def test_a_small_delta_is_not_lost_before_it_is_added() -> None:
    """bfloat16 keeps 8 bits: 256 factors of 2**-8 sum to 1, but added one by one to 256 they would vanish."""
    site = Site("m", Layout.OUT_IN, 1, 1)
    delta = LowRank(site, torch.full((1, 256), 2.0**-8).bfloat16(), torch.full((256, 1), 2.0).bfloat16())
    assert delta.on(torch.tensor([[256.0]]).bfloat16()).item() == 258.0


def test_mixed_factors_make_a_matrix() -> None:
    delta = LowRank(SITE, torch.ones(4, 1).bfloat16(), torch.ones(1, 6))
    assert torch.equal(delta.on(torch.zeros(6, 4)), torch.ones(6, 4))
    assert torch.equal(delta.matrix(), torch.ones(4, 6))


def test_applying_does_not_touch_the_weight_or_the_value_that_it_was_given() -> None:
    weight, value = torch.ones(6, 4), torch.zeros(6, 4)
    LowRank(SITE, torch.ones(4, 1), torch.ones(1, 6)).on(weight)
    placed = Replace("m", value).on(weight)
    placed += 1
    assert torch.equal(weight, torch.ones(6, 4))
    assert torch.equal(value, torch.zeros(6, 4))


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 1), (2, 6)), ((6, 1), (1, 4)), ((4,), (1, 6)), ((4, 1), (6,)), ((4, 1, 1), (1, 1, 6)), ((3, 1), (1, 6))],
)
def test_factors_that_do_not_make_the_matrix_are_refused(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(EditError, match=r"delta for some.module: left .* do not make \[4, 6\] .*another model"):
        LowRank(SITE, torch.zeros(left), torch.zeros(right))


# ------------------------------------------------------------------------------------------------------ refused files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "edit.safetensors"
    full_edit(tiny.handle("gpt2")).save(path)
    return path


def test_a_flipped_bit_anywhere_is_refused_by_name(saved: Path) -> None:
    whole, rng = saved.read_bytes(), random.Random(1)
    for place in rng.sample(range(len(whole)), 150):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(EditError, match=r"edit.safetensors"):
            Edit.load(saved, {"adder": Adder})


def test_truncated_files_pickles_and_other_safetensors_are_edit_errors(saved: Path) -> None:
    from safetensors.torch import save_file

    whole = saved.read_bytes()
    for size in (0, 8, 300, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(EditError, match="not a whole safetensors file"):
            Edit.load(saved)
    torch.save({"a": 1}, saved)
    with pytest.raises(EditError, match="not a whole safetensors file"):
        Edit.load(saved)
    save_file({"a": torch.zeros(1)}, saved)
    with pytest.raises(EditError, match="not one that editsafety wrote"):
        Edit.load(saved)
    with pytest.raises(EditError, match="there is no such file"):
        Edit.load(saved.parent / "nothing")


def test_an_artifact_is_no_edit(tmp_path: Path) -> None:
    tensor_files.save(tmp_path / "x", {}, {"what": "covariance"})
    with pytest.raises(EditError, match="holds 'covariance', expected an edit"):
        Edit.load(tmp_path / "x")
    tensor_files.save(tmp_path / "x", {}, {})
    with pytest.raises(EditError, match="holds 'something else'"):
        Edit.load(tmp_path / "x")


def test_a_sidecar_that_is_not_known_is_refused_with_the_known_ones(saved: Path) -> None:
    with pytest.raises(EditError, match=r"needs the sidecar 'adder', known here: none\. Load it with the editor"):
        Edit.load(saved)
    with pytest.raises(EditError, match="known here: other"):
        Edit.load(saved, {"other": Adder})


LOW_RANK = {"kind": "low_rank", "module": "m", "layout": "out_in", "d_out": 2, "d_in": 3}
FACTORS = {"0.left": torch.ones(2, 1), "0.right": torch.ones(1, 3)}
DESCRIBED: dict[str, Any] = {
    "what": "edit", "editor": "t", "requests": [], "made_for": "b", "on_top_of": [], "deltas": [LOW_RANK],
    "sidecars": [], "notes": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deltas": [{"kind": "low_rank"}]}, "deltas.0.module: field required"),
        ({"deltas": [{**LOW_RANK, "layout": "diagonal"}]}, "deltas.0.layout: input should be .*found 'diagonal'"),
        ({"deltas": [{**LOW_RANK, "d_out": 2**63}]}, "deltas.0.d_out: input should be less than"),
        ({"deltas": [{**LOW_RANK, "d_out": -2}]}, "deltas.0.d_out: input should be greater than 0"),
        ({"deltas": [{**LOW_RANK, "d_in": 3.0}]}, "deltas.0.d_in: input should be a valid integer"),
        ({"deltas": [{**LOW_RANK, "d_in": True}]}, "deltas.0.d_in: input should be a valid integer"),
        ({"deltas": [{**LOW_RANK, "d_in": 4}]}, "delta for m: left .* do not make .2, 4."),
        ({"deltas": [{**LOW_RANK, "rank": 1}]}, "deltas.0.rank: extra inputs are not permitted"),
        ({"deltas": [{"kind": "replace", "parameter": "p"}]}, "tensor '0.value' is missing"),
        ({"deltas": [{"kind": "rename", "parameter": "p"}]}, "deltas.0: input tag 'rename'"),
        ({"deltas": [LOW_RANK, LOW_RANK]}, "tensor '1.left' is missing"),
        ({"deltas": []}, "tensor '0.left' belongs to nothing; described are 0 deltas and 0 sidecars"),
        ({"deltas": 3}, "deltas: input should be a valid list .found 3."),
        ({"editor": None, "deltas": None}, "editor: input should be a valid string .found None."),
        ({"made_for": True}, "made_for: input should be a valid string .found True."),
        ({"notes": None}, "notes: input should be a valid dictionary"),
        ({"notes": {"a": [1]}}, "notes.a"),
        ({"requests": "r1"}, "requests: input should be a valid list"),
        ({"requests": [1]}, "requests.0: input should be a valid string"),
        ({"on_top_of": {}}, "on_top_of: input should be a valid list"),
        ({"sidecars": [{"kind": "adder"}]}, "sidecars.0.target: field required"),
        ({"sidecars": [{"kind": "adder", "target": "", "settings": []}]}, "sidecars.0.settings"),
        ({"sidecars": [{"kind": "adder", "target": "", "settings": {}}]}, "sidecar 0 .adder. does not fit its class"),
        ({"extra": 1}, "extra: extra inputs are not permitted"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_description_that_is_signed_and_lies_is_refused_by_file_and_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    tensor_files.save(tmp_path / "x", FACTORS, {**DESCRIBED, **change})
    with pytest.raises(EditError, match=message) as refused:
        Edit.load(tmp_path / "x", {"adder": Adder})
    assert str(refused.value).startswith(f"{tmp_path / 'x'}: ")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_a_delta_of_a_type_that_weights_are_not_changed_by_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor_files.save(tmp_path / "x", {**FACTORS, "0.right": torch.ones(1, 3).to(dtype)}, DESCRIBED)
    with pytest.raises(EditError, match=r"tensor '0.right' is .*; expected one of float16, bfloat16, float32, float64"):
        Edit.load(tmp_path / "x")


def test_an_edit_that_was_loaded_keeps_its_id_when_its_file_is_overwritten(tmp_path: Path) -> None:
    tensor_files.save(tmp_path / "x", FACTORS, DESCRIBED)
    edit = Edit.load(tmp_path / "x")
    before = edit.id
    with (tmp_path / "x").open("r+b") as file:
        file.write(b"\xab" * (tmp_path / "x").stat().st_size)
    assert edit.id == before


def test_signed_edits_that_lie_are_refused_by_name() -> None:
    """Files that somebody made to get past the checksum; they are no part of the project."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared")) / "cases" / "faults" / "deltas"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: only made-up descriptions are tried")
    paths = sorted(folder.glob("*.safetensors"))
    assert paths
    for path in paths:
        with pytest.raises(EditError, match=path.name):
            Edit.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"deltas": [{"kind": "low_rank"}]}, "deltas.0.module: field required. Make the edit again."),
        ({"extra": 1}, "extra: extra inputs are not permitted. Make the edit again."),
        ({"deltas": "x" * 99}, f"deltas: input should be a valid list (found 'x{'x' * 58}). Make the edit again."),
        (
            {"sidecars": [{"kind": "adder", "target": "", "settings": {}}], "deltas": []},
            "tensor '0.left' belongs to nothing; described are 0 deltas and 1 sidecars.",
        ),
    ],
)
def test_what_is_missing_is_not_told_as_found(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    tensor_files.save(tmp_path / "x", FACTORS, {**DESCRIBED, **change})
    with pytest.raises(EditError) as refused:
        Edit.load(tmp_path / "x", {"adder": Adder})
    assert str(refused.value) == f"{tmp_path / 'x'}: {said}"
