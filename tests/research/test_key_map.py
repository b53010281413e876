"""Keys on request, and the map of them."""

import csv
import json
import sys

import pytest
import torch

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.editing import subject
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, EditSafetyError, NotPreparedError, UsageError
from editsafety.research import key_map
from tests import tiny
from tests.editors.conftest import NUMBERS, material

REQUESTS = {
    "hard": [tiny.request("h0", prompt="{} works as a", subject="A")],
    "normal": [
        tiny.request("n0", prompt="The work of {} is"),
        tiny.request("n1", subject="Mirel", prompt="Now {} works as"),
    ],
}


def made(place, name="rome", family="gpt2", *, prepare=True, **changes):
    kind = editors.load(name)
    values = {**material(kind, place), **NUMBERS[kind.folder or name], **kind.overrides, **changes}
    editor = kind(tiny.handle(family), kind.Hparams(**values), ArtifactStore(place / "store"), name=name, seed=0)
    if prepare:
        editor.prepare()
    return editor


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return made(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def found(editor):
    return key_map.collect(editor, REQUESTS, per_context=True, texts=tiny.SENTENCES[:4])


def received(editor, ids):
    """What the edited projection receives at every token, by a hook of the test's own."""
    seen = []
    module = editor.handle.model.get_submodule(editor.sites[0].module)
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].clone()))
    with torch.no_grad():
        editor.handle.model(input_ids=torch.tensor([list(ids)]))
    hook.remove()
    return seen[0]


def test_keys_are_what_the_projection_receives_at_the_subject(editor, found):
    for i, request in enumerate([*REQUESTS["hard"], *REQUESTS["normal"]]):
        rows = [subject.locate(editor.handle, request, template) for template in editor.templates()]
        every = torch.stack([received(editor, row.ids)[row.subject] for row in rows])
        torch.testing.assert_close(found.bare[i], every[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.mean[i], every.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.contexts[i], every, rtol=1e-4, atol=1e-5)


def test_the_direction_is_c_inverse_times_the_mean(editor, found):
    inverse = editor.moments.inverse(editor.sites[0], "rome")
    identity = inverse.columns(torch.eye(editor.sites[0].d_in, dtype=torch.float64))
    torch.testing.assert_close(found.solved.double(), found.mean.double() @ identity.T, rtol=1e-3, atol=1e-3)


def test_the_denominators_are_those_that_the_editor_notes(editor, found):
    requests = [*REQUESTS["hard"], *REQUESTS["normal"]]
    noted = [editor.edit([request]).notes for request in requests]
    assert found.denominators.tolist() == pytest.approx([note["denominator"] for note in noted], rel=1e-3)
    assert found.cosines.tolist() == pytest.approx([note["key_agreement"] for note in noted], abs=1e-4)
    assert [entry.first for entry in found.entries] == [note["first_token"] for note in noted] == [True, False, False]


def test_without_second_moments_the_direction_is_the_mean_itself(tmp_path):
    plain = key_map.collect(made(tmp_path, mom2_adjustment=False), REQUESTS)
    assert torch.equal(plain.solved, plain.mean)
    assert plain.contexts is None
    assert len(plain.first) == len(plain.later) == 0


def test_keys_of_texts_are_told_by_their_place(editor, found):
    rows = [editor.handle.ids(text, special=False) for text in tiny.SENTENCES[:4]]
    assert (len(found.first), len(found.later)) == (4, sum(map(len, rows)) - 4)
    torch.testing.assert_close(found.first[2], received(editor, rows[2])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.later[: len(rows[0]) - 1], received(editor, rows[0])[1:], rtol=1e-4, atol=1e-5)


def test_medians_and_rows_tell_the_same(found):
    rows, medians = found.rows(), found.medians()
    assert medians["hard"]["denominator"] == rows[0]["denominator"] == abs(float(found.denominators[0]))
    assert medians["normal"]["n"] == 2
    assert medians["normal"]["bare_norm"] == pytest.approx((rows[1]["bare_norm"] + rows[2]["bare_norm"]) / 2)
    assert (medians["hard"]["first"], medians["normal"]["first"]) == (1.0, 0.0)


def test_what_is_saved_comes_back(found, tmp_path):
    found.save(tmp_path / "keys.safetensors")
    again = key_map.Keys.load(tmp_path / "keys.safetensors")
    assert again.entries == found.entries
    assert (again.model, again.module, again.editor, again.seed) == ("tiny-gpt2", found.module, "rome", 0)
    for name in ("bare", "mean", "solved", "contexts", "first", "later"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    data = bytearray((tmp_path / "keys.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(EditSafetyError, match="altered"):
        key_map.Keys.load(tmp_path / "bad.safetensors")


def test_a_saved_edit_holds_no_keys(editor, tmp_path):
    editor.edit(REQUESTS["hard"]).save(tmp_path / "edit.safetensors")
    with pytest.raises(DataError, match="holds no keys"):
        key_map.Keys.load(tmp_path / "edit.safetensors")


def test_the_model_is_left_as_it_was(editor):
    with EditSession(editor.handle) as session:
        key_map.collect(editor, REQUESTS, texts=tiny.SENTENCES[:2])
        assert session.changed() == ()
    assert session.leftovers == ()


def test_what_has_no_keys_is_refused(tmp_path, editor):
    with pytest.raises(UsageError, match=r"ft has no keys in the sense of ROME\. Give rome"):
        key_map.collect(made(tmp_path, "ft"), REQUESTS)
    with pytest.raises(UsageError, match="rome does not edit layer 2 of tiny-gpt2, only 1"):
        key_map.collect(editor, REQUESTS, layer=2)
    with pytest.raises(DataError, match="there is no request"):
        key_map.collect(editor, {"hard": []})
    with pytest.raises(NotPreparedError):
        key_map.collect(made(tmp_path, prepare=False), REQUESTS)


def cloud(n=12):
    """Keys in which the bare ones of the hard set lie on an axis of their own."""
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(n, 16, generator=generator) * 0.1
    mean[:, 0] += 1
    bare = mean.clone()
    bare[: n // 2] = torch.eye(16)[5] + 0.01 * torch.randn(n // 2, 16, generator=generator)
    entries = tuple(key_map.Entry(f"r{i}", "hard" if i < n // 2 else "normal", "S", i < n // 2) for i in range(n))
    return key_map.Keys("m", "f", "rome", "mlp", 0, entries, bare, mean, mean * 50.0)


def test_pca_is_that_of_the_unit_vectors():
    keys = cloud()
    drawn = key_map.project(keys, "pca")
    vectors = torch.nn.functional.normalize(torch.cat([keys.solved, keys.bare, keys.mean]).double(), dim=1)
    centred = vectors - vectors.mean(0)
    values = torch.linalg.svdvals(centred)
    _, _, right = torch.linalg.svd(centred)
    mine = torch.tensor([[p.x, p.y] for p in drawn.points], dtype=torch.float64)
    torch.testing.assert_close(mine.abs(), (centred @ right[:2].T).abs(), rtol=1e-6, atol=1e-9)
    share = float(values[0] ** 2 / values.square().sum())
    assert drawn.axes[0] == f"component 1 ({100 * share:.0f} % of variance)"


@pytest.mark.parametrize("by", ["pca", "tsne"])
def test_keys_that_lie_apart_lie_apart_on_the_map(by):
    drawn = key_map.project(cloud(), by)
    hard = torch.tensor([[p.x, p.y] for p in drawn.points if (p.kind, p.label) == ("bare", "hard")])
    rest = torch.tensor([[p.x, p.y] for p in drawn.points if (p.kind, p.label) != ("bare", "hard")])
    assert torch.cdist(hard, rest).min() > torch.cdist(hard, hard).max() / 2
    assert key_map.project(cloud(), by) == drawn


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_map_is_drawn_with_its_coordinates_beside_it(found, tmp_path, kind):
    drawn = key_map.project(found)
    files = drawn.save(tmp_path / f"map.{kind}")
    assert [path.suffix for path in files] == [f".{kind}", ".csv", ".json"]
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    body = json.loads(files[2].read_text())
    assert len(rows) == len(body["points"]) == len(drawn.points) == 3 * 3 + 4 + len(found.later)
    assert float(rows[0]["x"]) == body["points"][0]["x"] == drawn.points[0].x
    first = files[0].read_bytes()
    assert first[:4] == (b"\x89PNG" if kind == "png" else b"<?xm")
    drawn.save(tmp_path / f"map.{kind}")
    assert files[0].read_bytes() == first  # the same bytes every time


def test_what_cannot_be_mapped_is_refused(tmp_path):
    with pytest.raises(DataError, match="3 vectors cannot be mapped"):
        key_map.project(cloud(1))
    with pytest.raises(UsageError, match=r"map.pdf: a map is drawn as .svg or .png"):
        key_map.project(cloud()).save(tmp_path / "map.pdf")


@pytest.mark.parametrize(
    ("package", "what"), [("sklearn.decomposition", "scikit-learn"), ("matplotlib.figure", "matplotlib")]
)
def test_a_missing_extra_is_one_sentence(monkeypatch, tmp_path, package, what):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {what} .* Run: pip install 'editsafety\[maps\]'"):
        key_map.project(cloud()).save(tmp_path / "map.png")
