"""The editors against the published implementations' own deltas, on a tiny GPT-2 with fixed contexts and moments.

A golden was computed on one processor and is compared on any. Most deltas differ by 1e-6 between processors. Where
rounding alone moves one further (Adam's first step is the sign of a gradient, and some gradients are almost zero; a
float32 inverse of a matrix of condition 14,000), the test measures by how much: the same edit after every weight, or
every entry of C, was moved by up to half a unit in its last place.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editing import covariance
from editsafety.editing.covariance import Covariance, Inverse
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

TOLERANCE = 1e-4  # relative Frobenius error: above every difference between machines, below every known discrepancy
HALF_A_UNIT = torch.finfo(torch.float32).eps / 2
DRAWS = range(5)  # of the rounding that is measured
CASES = range(5)
ROMES = {"rome": "rome", "c_rome": "c_rome", "r_rome": "r_rome", "p_rome": "p_rome"}
FTS = {"ft_l": "prompt_last", "ft_m": "target_new"}


@pytest.fixture(scope="module")
def goldens() -> Path:
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared")) / "goldens" / "tiny-gpt2"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the published deltas cannot be compared")
    return folder


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.thorough)], ids=["", "plain"])
def handle(goldens: Path, request: pytest.FixtureRequest) -> ModelHandle:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(goldens / "model", attn_implementation="eager")
    found = ModelHandle.of(model, PreTrainedTokenizerFast.from_pretrained(goldens / "model"), name="tiny-gpt2")
    found.engine.plain = request.param
    return found


@pytest.fixture(scope="module")
def requests(goldens: Path) -> list[EditRequest]:
    rows = json.loads((goldens / "requests.json").read_text())
    return [EditRequest(str(row["case_id"]), row["prompt"], row["subject"], row["target_new"]) for row in rows]


def numbers(goldens: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((goldens / "index.json").read_text())[name]["hyperparameters"])


class Moments:
    """The moments of the goldens, inverted the way a test wants."""

    def __init__(self, matrices: Mapping[str, Tensor], published_inverse: bool) -> None:
        self.matrices, self.published_inverse = matrices, published_inverse

    def inverse(self, site: Site, _editor: str) -> Any:
        matrix = self.matrices[site.module]
        inverse = torch.inverse(matrix)
        return inverse.__matmul__ if self.published_inverse else Inverse(Covariance(site.module, matrix, 10**6))


def rome(
    name: str, handle: ModelHandle, goldens: Path, store: Path, *, published_inverse: bool, draw: int | None = None
) -> editors.Editor:
    """An editor of ROME's family with the goldens' contexts and moments; `draw` moves the moments within rounding."""
    kind: Any = editors.load(name)
    given = numbers(goldens, name)
    known = {key: value for key, value in given.items() if key in kind.Hparams.model_fields}
    templates = tuple(json.loads((goldens / "templates.json").read_text())["rome"])
    read = load_file(goldens / "covariance.safetensors")
    matrices = {module: jittered(matrix, draw) for module, matrix in read.items()}
    golden: Any = type(
        "Golden",
        (kind,),
        {"templates": lambda _: templates, "moments": Moments(matrices, published_inverse)},
    )
    made: editors.Editor = golden(handle, kind.Hparams(**{**known, **kind.overrides}), ArtifactStore(store), name=name)
    return made


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def jittered(values: Tensor, draw: int | None) -> Tensor:
    """Every value moved by up to half a unit in its last place; the values themselves without a draw."""
    if draw is None:
        return values
    noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(draw)) * 2 - 1
    return values * (1 + HALF_A_UNIT * noise)


@contextmanager
def weights_jittered(handle: ModelHandle, draw: int) -> Iterator[None]:
    kept = {name: weight.detach().clone() for name, weight in handle.model.named_parameters()}
    try:
        with torch.no_grad():
            for weight in handle.model.parameters():
                weight.copy_(jittered(weight, draw))
        yield
    finally:
        with torch.no_grad():
            for name, weight in handle.model.named_parameters():
                weight.copy_(kept[name])


def within_rounding(
    handle: ModelHandle,
    deltas: Callable[[int | None], Mapping[str, Tensor]],
    expected: Mapping[str, Tensor],
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether every delta is the expected one up to `tolerance`, or as near as its own rounding lets it be."""
    found = deltas(None)
    assert set(found) == set(expected)
    far = {name for name in found if not error(found[name], expected[name]) < tolerance}
    moved = dict.fromkeys(far, 0.0)
    for draw in DRAWS if far else ():
        with weights_jittered(handle, draw):
            again = deltas(draw)
        moved |= {name: max(moved[name], error(again[name], found[name])) for name in far}
    return all(error(found[name], expected[name]) < 2 * moved[name] < 20 * TOLERANCE for name in far)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ROMES)
def test_a_rome_edit_is_the_published_one(
    name: str, case: int, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    edit = rome(name, handle, goldens, tmp_path, published_inverse=False).edit([requests[case]])
    (delta,) = edit.deltas
    assert isinstance(delta, LowRank)
    deltas = load_file(goldens / f"{name}.deltas.safetensors")
    assert error(delta.site.stored(delta.matrix()), deltas[f"case_{case}::{delta.parameter}"]) < TOLERANCE
    inside = load_file(goldens / f"{name}.internals.safetensors")
    left, right = delta.left[:, 0], delta.right[0]
    assert error(right, inside[f"case_{case}::u.0"]) < TOLERANCE
    assert error(left, inside[f"case_{case}::right.0"]) < TOLERANCE


@pytest.mark.parametrize("name", ROMES)
def test_with_the_published_float32_inverse_nothing_but_its_rounding_is_left(
    name: str, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    def vectors(draw: int | None = None) -> tuple[Tensor, Tensor]:
        editor = rome(name, handle, goldens, tmp_path, published_inverse=True, draw=draw)
        (delta,) = editor.edit([requests[0]]).deltas
        assert isinstance(delta, LowRank)
        return delta.left[:, 0], delta.right[0]

    left, right = vectors()
    inside = load_file(goldens / f"{name}.internals.safetensors")
    assert error(left, inside["case_0::right.0"]) < 1e-5
    moved = max(error(vectors(draw)[1], right) for draw in DRAWS)
    assert error(right, inside["case_0::u.0"]) < 2 * moved < TOLERANCE


def fine_tuned(name: str, handle: ModelHandle, goldens: Path, store: Path, request: EditRequest) -> Edit:
    kind: Any = editors.load("ft")
    given = numbers(goldens, name)
    known = {key: value for key, value in given.items() if key in kind.Hparams.model_fields}
    known["norm_constraint"] = given["norm_constraint"] or None
    values = kind.Hparams(**{**known, "loss": FTS[name], "train_bias": True})
    edit: Edit = kind(handle, values, ArtifactStore(store), name="ft").edit([request])
    return edit


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FTS)
def test_a_fine_tuned_weight_is_the_published_one(
    name: str, case: int, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    edit = fine_tuned(name, handle, goldens, tmp_path, requests[case])
    deltas = load_file(goldens / f"{name}.deltas.safetensors")
    assert {f"case_{case}::{parameter}" for parameter in edit.parameters} == {k for k in deltas if f"_{case}:" in k}
    for delta in edit.deltas:
        weight = handle.model.get_parameter(delta.parameter).detach()
        assert error(delta.on(weight) - weight, deltas[f"case_{case}::{delta.parameter}"]) < TOLERANCE


def spread(
    name: str, golden: str, handle: ModelHandle, goldens: Path, place: Path, draw: int | None = None, **more: str
) -> editors.Editor:
    """MEMIT or a relative with the golden's numbers and contexts, its second moments (see `rome`) in the store."""
    kind: Any = editors.load(name)
    given = numbers(goldens, golden)
    groups = tuple(tuple(group) for group in json.loads((goldens / "templates.json").read_text())["memit"])
    known = {key: value for key, value in given.items() if key in kind.Hparams.model_fields}
    store = ArtifactStore(place / str(draw))
    for module, read in load_file(goldens / "covariance.safetensors").items():
        matrix = jittered(read, draw)
        tokens = covariance.TOKENS_PER_DIMENSION * len(matrix)
        covariance.keep(handle, store, Covariance(module, matrix, 10**6), "prepared by the user", tokens)
    fixed: Any = type("Golden", (kind,), {"groups": lambda _: groups})
    made: editors.Editor = fixed(handle, kind.Hparams(**known, **more), store, name=name)
    made.prepare()
    return made


def stored(delta: object) -> tuple[str, Tensor]:
    assert isinstance(delta, LowRank)
    return delta.parameter, delta.site.stored(delta.matrix())


@pytest.mark.parametrize("name", ["memit", "emmet"])
def test_a_batch_is_the_published_one(
    name: str, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    def deltas(draw: int | None) -> dict[str, Tensor]:
        return dict(map(stored, spread(name, name, handle, goldens, tmp_path, draw).edit(requests).deltas))

    golden = load_file(goldens / f"{name}.deltas.safetensors")
    assert within_rounding(handle, deltas, {key.removeprefix("batch::"): delta for key, delta in golden.items()})


@pytest.mark.parametrize("case", CASES)
def test_a_single_emmet_edit_is_the_published_one(
    case: int, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    def deltas(draw: int | None) -> dict[str, Tensor]:
        edit = spread("emmet", "emmet_single", handle, goldens, tmp_path, draw).edit([requests[case]])
        return dict(map(stored, edit.deltas))

    golden = load_file(goldens / "emmet_single.deltas.safetensors")
    prefix = f"case_{case}::"
    expected = {name.removeprefix(prefix): delta for name, delta in golden.items() if name.startswith(prefix)}
    assert within_rounding(handle, deltas, expected)


# The goldens' threshold lies between eigenvalues that differ by 0.4 % (0.04993 and 0.05014; the largest is 45), which
# the published float32 SVD mixes: against a float64 P one direction is 4 % off.
PROJECTIONS = pytest.mark.parametrize(("precision", "tolerance"), [("float32", TOLERANCE), ("float64", 5e-3)])


@PROJECTIONS
def test_a_batch_of_alphaedit_is_the_published_one(
    precision: str, tolerance: float, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:  # fmt: skip
    edit = spread("alphaedit", "alphaedit_batch", handle, goldens, tmp_path, nullspace_precision=precision).edit(
        requests
    )
    expected = load_file(goldens / "alphaedit_batch.deltas.safetensors")
    found = dict(stored(delta) for delta in edit.deltas)
    assert {f"batch::{parameter}" for parameter in found} == set(expected)
    for parameter, delta in found.items():
        assert error(delta, expected[f"batch::{parameter}"]) < tolerance


@PROJECTIONS
def test_a_sequence_of_alphaedit_is_the_published_one(
    precision: str, tolerance: float, handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:  # fmt: skip
    def course(draw: int | None) -> dict[str, Tensor]:
        editor = spread(
            "alphaedit", "alphaedit_sequential", handle, goldens, tmp_path, draw, nullspace_precision=precision
        )
        deltas: dict[str, Tensor] = {}
        carry: Mapping[str, Tensor] | None = None
        with EditSession(handle) as session:
            for case, request in enumerate(requests):
                edit = editor.edit([request], carry)
                session.apply(edit)
                carry = edit.carry
                deltas |= {f"case_{case}::{parameter}": found for parameter, found in map(stored, edit.deltas)}
            for delta in edit.deltas:
                now = handle.model.get_parameter(delta.parameter).detach()
                deltas[f"total::{delta.parameter}"] = now - session.original(delta.parameter)
        return deltas

    expected = load_file(goldens / "alphaedit_sequential.deltas.safetensors")
    assert within_rounding(handle, course, expected, tolerance)


def test_the_projection_of_alphaedit_has_the_published_rank(
    handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    expected = json.loads((goldens / "index.json").read_text())["alphaedit_batch"]["null_space_dim"]
    notes = spread("alphaedit", "alphaedit_batch", handle, goldens, tmp_path).edit(requests[:1]).notes
    assert [notes[f"{layer}.null_space"] for layer in (0, 1, 2)] == expected


def test_the_residuals_and_keys_of_memit_are_the_published_ones(
    handle: ModelHandle, goldens: Path, requests: list[EditRequest], tmp_path: Path
) -> None:
    """Behind the deltas: residual shares (V* - H) / (layers left), and keys, by what they solve."""
    edit = spread("memit", "memit", handle, goldens, tmp_path).edit(requests)
    inside = load_file(goldens / "memit.internals.safetensors")
    values = torch.stack([inside[f"batch::z.{i}"] for i in range(len(requests))])
    weight = numbers(goldens, "memit")["mom2_update_weight"]
    for layer, delta in enumerate(edit.deltas):
        assert isinstance(delta, LowRank)
        share = (values - inside[f"batch::cur_z[1].{layer}"]) / (3 - layer)
        assert error(delta.left.T, share) < TOLERANCE
        keys = inside[f"batch::ks.{layer}"].T.double()
        moment = load_file(goldens / "covariance.safetensors")[delta.site.module].double()
        plain = torch.linalg.solve(weight * moment + keys @ keys.T, keys)
        assert error(delta.right.double(), plain.T) < TOLERANCE
