"""The published work, written out plainly, gives the updates that our editors give: two computations of one formula."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.edits.edit import LowRank
from editsafety.errors import UsageError
from editsafety.research.speed.naive import Naive
from tests import tiny
from tests.editors.conftest import NUMBERS, material

REQUESTS = (
    tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker"),
    tiny.request("case-1", subject="Mirel", target_new="farmer"),
)


def made(name: str, family: str, place: Path) -> editors.Editor:
    kind = editors.load(name)
    values = kind.Hparams(**{**material(kind, place), **NUMBERS[name]})
    editor = kind(tiny.handle(family), values, ArtifactStore(place / "store"), name=name)
    editor.prepare()
    return editor


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit"])
def test_the_published_work_gives_the_same_updates_and_leaves_the_model_as_it_was(
    name: str, family: str, tmp_path: Path
) -> None:
    editor = made(name, family, tmp_path)
    requests = REQUESTS[:1] if name == "rome" else REQUESTS
    published = Naive.of(editor).edit(requests)
    assert editor.handle.fingerprint() == editor.handle.identity
    ours = {delta.site.module: delta for delta in editor.edit(requests).deltas if isinstance(delta, LowRank)}
    assert published.keys() == ours.keys()
    for module, update in published.items():
        assert (update - ours[module].matrix()).norm() <= 1e-5 * update.norm()


def test_a_method_that_is_not_written_out_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memit or alphaedit"):
        Naive.of(made("ft", "gpt2", tmp_path))
