"""How a user's command reads each kind of file, and uses what it read.

A reader is given the folder in which the files lie. It raises EditSafetyError or comes to its end.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path

from editsafety import datasets, editors, reporting
from editsafety.artifacts import ArtifactStore
from editsafety.cli.run import stored
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import EditSafetyError
from editsafety.judging.policy import Policy
from editsafety.model.handle import ModelHandle
from editsafety.reporting import ReportPlace
from tests import tiny
from tests.editors.conftest import NUMBERS, material

DELTA, ROWS, POLICY, HPARAMS, STORE, PLAN = (
    *("edit.safetensors", "rows.json", "policy.yaml", "hparams.yaml"),
    *("store.sqlite", "plan.json"),
)
FIGURES = (None, float("nan"), 0.0, 1.3, 1e300)


@cache
def model() -> ModelHandle:
    """The model that deltas and artifacts are made for."""
    return tiny.handle("gpt2")


def delta(folder: Path) -> None:
    """Load an edit; put it into its model, run that, and take it out again; save it and load the copy."""
    edit = Edit.load(folder / DELTA)
    handle = model()
    with EditSession(handle) as session:
        session.apply(edit)
        handle.logits(handle.batch([handle.ids("Ashurn works as a")]))
    edit.save(folder / "again.safetensors")
    assert Edit.load(folder / "again.safetensors").id == edit.id, "saved and loaded again it is another edit"
    assert handle.fingerprint() == handle.identity, "the model is not what it was"


def editor_of(name: str, folder: Path) -> editors.Editor:
    """An editor of the tiny model that keeps what it prepares below a folder."""
    kind = editors.load(name)
    values = {**material(kind, folder), **NUMBERS[kind.folder or name], **kind.overrides}
    return kind(model(), kind.Hparams(**values), ArtifactStore(folder / "store"), name=name)


def artifacts(name: str, folder: Path) -> None:
    """Edit with what an editor prepared; a file that cannot be used is reported, and is as if it were not there."""
    (folder / "store").mkdir()
    for path in folder.glob("*.safetensors"):
        path.rename(folder / "store" / path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a file is ignored
        editor = editor_of(name, folder)
        editor.missing()
        edit = editor.edit([tiny.request()])
    assert edit.id, "no edit"


def requests(folder: Path) -> None:
    """The rows of a file as each loader reads them, each as a run uses it. Refused: by every loader."""
    taken, refusals = False, list[EditSafetyError]()
    for loader in _loaders():
        try:
            for row in loader.read(folder / ROWS):
                taken = True
                _use(row)
        except EditSafetyError as error:
            refusals.append(error)
    if not taken:
        raise refusals[0]


@cache
def _loaders() -> tuple[datasets.Loader, ...]:
    return tuple(datasets.load(name) for name in datasets.loaders())


def _use(row: EditRequest | str) -> None:
    if isinstance(row, str):
        row.encode()
        return
    assert row.subject in row.filled, "the subject is not in the prompt"
    assert row.slug, "no name"
    assert len(row.digest()) == 64, "no digest"
    assert EditRequest.from_json(row.as_json()) == row, "kept and read again it is another request"
    json.dumps(row.as_json(), allow_nan=False).encode()


def policy(folder: Path) -> None:
    """A policy, and what a run asks of it."""
    read = Policy.read(folder / POLICY)
    read.digest()
    read.refuse_below_noise(1e-7)
    for limit in (*read.case.values(), *read.group.values(), *read.course.values()):
        for figure in FIGURES:
            limit.verdict(figure)
            limit.spelled(figure)
    if any(limit.finds_collapse for limit in (*read.case.values(), *read.course.values())):
        read.with_collapse_above(3.0)


def hparams(folder: Path) -> None:
    """Hyperparameters as ROME reads them."""
    read = editors.read_hparams("rome", "tiny", folder / HPARAMS)
    json.dumps(read.model_dump(mode="json"), allow_nan=False)
    editors.set_aside("rome", folder / HPARAMS)


def run(folder: Path) -> None:
    """Judge a stored run again, and show it in every format."""
    found = stored(folder)
    for name in reporting.names():
        reporting.load(name)(found, ReportPlace("suites", folder))
    assert found.exit_code != 0 or found.judged, "nothing was judged, and it passed"
