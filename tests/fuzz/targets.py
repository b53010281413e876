"""What is fuzzed: for each kind of file, damaged ones, and how a user's command would read and use them.

A reader raises EditSafetyError, or comes to its end; anything else is a finding.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from editsafety import datasets, editors
from editsafety.artifacts import ArtifactStore
from editsafety.cli.run import stored
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditSafetyError
from editsafety.judging.policy import Policy
from editsafety.model.handle import ModelHandle
from editsafety.reporting import ReportPlace
from editsafety.reporting import load as reporter
from editsafety.shipped import shipped
from tests import tiny
from tests.editors.conftest import NUMBERS, material
from tests.fuzz import layouts, mutations, stores, tensors
from tests.fuzz.mutations import Whole


class Files(dict[str, bytes]):
    """What lies in a folder, by name; shown in few words."""

    def __repr__(self) -> str:
        shown = (f"{name}: {data[:300]!r} ({len(data)} bytes)" for name, data in self.items())
        return f"Files({', '.join(shown)})"


@dataclass(frozen=True)
class Target:
    """A kind of file. `read` is given the folder in which the files lie."""

    name: str
    files: SearchStrategy[Files]
    read: Callable[[Path], object]
    examples: int = 60  # in the test suite


def _one(name: str, contents: SearchStrategy[bytes]) -> SearchStrategy[Files]:
    return contents.map(lambda data: Files({name: data}))


# Deltas: `editsafety verify`, `check --delta`, a guard.


@cache
def model() -> ModelHandle:
    """The model that deltas are made for, and put into."""
    return tiny.handle("gpt2")


@cache
def delta() -> bytes:
    """A whole saved edit: a low-rank delta, a replaced parameter, notes."""
    handle = model()
    name = "transformer.h.0.mlp.c_fc.bias"
    deltas = (tiny.low_rank(handle.mlp_out(1)), Replace(name, handle.model.get_parameter(name).detach() + 1))
    edit = Edit("rome", ("a-1",), handle.identity, deltas, notes={"denominator": 0.5, "stopped": True})
    with tempfile.TemporaryDirectory() as folder:
        edit.save(Path(folder) / "edit.safetensors")
        return Whole((Path(folder) / "edit.safetensors").read_bytes())


def read_delta(folder: Path) -> None:
    """Load an edit; put it into its model, run that, and take it out again; save it and load the copy."""
    edit = Edit.load(folder / "edit.safetensors")
    handle = model()
    with EditSession(handle) as session:
        session.apply(edit)
        handle.logits(handle.batch([handle.ids("Ashurn works as a")]))
    edit.save(folder / "again.safetensors")
    again = Edit.load(folder / "again.safetensors")
    assert again.id == edit.id, "saved and loaded again it is another edit"
    assert handle.fingerprint() == handle.identity, "the model is not what it was"


# Artifacts: what `prepare` keeps, read by the editors that need it.

PREPARED = ("alphaedit", "mend", "serac")


@cache
def prepared(name: str) -> Files:
    """The files that an editor prepares for the tiny model."""
    with tempfile.TemporaryDirectory() as folder:
        editor = _editor(name, Path(folder))
        editor.prepare()
        editor.edit([tiny.request()])
        kept = sorted((Path(folder) / "store").glob("*.safetensors"))
        return Files({path.name: Whole(path.read_bytes()) for path in kept})


def _editor(name: str, folder: Path) -> editors.Editor:
    kind = editors.load(name)
    values = {**material(kind, folder), **NUMBERS[kind.folder or name], **kind.overrides}
    return kind(model(), kind.Hparams(**values), ArtifactStore(folder / "store"), name=name)


def _artifacts(name: str) -> SearchStrategy[Files]:
    def damaged(file: str) -> SearchStrategy[Files]:
        return tensors.files(prepared(name)[file]).map(lambda data: Files({**prepared(name), file: data}))

    return st.deferred(lambda: st.sampled_from(sorted(prepared(name))).flatmap(damaged))


def read_artifacts(name: str) -> Callable[[Path], None]:
    """Edit with what was prepared: a file that is not used is reported, and made again by `prepare`."""

    def read(folder: Path) -> None:
        (folder / "store").mkdir()
        for path in folder.glob("*.safetensors"):
            path.rename(folder / "store" / path.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a file is ignored
            editor = _editor(name, folder)
            editor.missing()
            edit = editor.edit([tiny.request()])
        assert edit.id, "no edit"

    return read


# Data sets, texts, policies, hyperparameters.


def _data(documents: SearchStrategy[object]) -> SearchStrategy[bytes]:
    whole = documents.flatmap(lambda rows: st.sampled_from([mutations.written(rows), mutations.lines(rows)]))
    other = mutations.changed(documents)
    lying = other.flatmap(lambda rows: st.sampled_from([mutations.written(rows), mutations.lines(rows)]))
    return st.one_of(lying, lying, mutations.damaged(whole))


def read_requests(folder: Path) -> None:
    """The rows of a file as each loader reads them; each request as a run uses it."""
    for loader in loaders():
        with contextlib.suppress(EditSafetyError):
            for row in loader.read(folder / "rows.json"):
                if loader.holds == "texts":
                    row.encode()
                else:
                    _use(row)


@cache
def loaders() -> tuple[datasets.Loader, ...]:
    """Every loader there is."""
    return tuple(datasets.load(name) for name in datasets.loaders())


def _use(request: EditRequest) -> None:
    assert request.subject in request.filled, "the subject is not in the prompt"
    assert request.slug, "no name"
    assert len(request.digest()) == 64, "no digest"
    assert EditRequest.from_json(request.as_json()) == request, "kept and read again it is another request"
    json.dumps(request.as_json(), allow_nan=False).encode()


def _yaml(documents: SearchStrategy[object]) -> SearchStrategy[bytes]:
    def spelled(document: object) -> bytes:
        return yaml.safe_dump(document, allow_unicode=False).encode()

    return st.one_of(
        mutations.changed(documents).map(spelled),
        mutations.changed(documents).map(mutations.written),
        mutations.damaged(documents.map(spelled), (*mutations.YAML, *mutations.BYTES)),
    )


def read_policy(folder: Path) -> None:
    """A policy, and what a run asks of it."""
    policy = Policy.read(folder / "policy.yaml")
    policy.digest()
    policy.refuse_below_noise(1e-7)
    for limit in (*policy.case.values(), *policy.group.values(), *policy.course.values()):
        for figure in (None, float("nan"), 0.0, 1.3, 1e300):
            limit.verdict(figure)
            limit.spelled(figure)
    policy.with_collapse_above(3.0)


def read_hparams(folder: Path) -> None:
    """Hyperparameters as each editor reads them."""
    for name in ("rome", "mend"):
        with contextlib.suppress(EditSafetyError):
            hparams = editors.read_hparams(name, "tiny", folder / "hparams.yaml")
            json.dumps(hparams.model_dump(mode="json"), allow_nan=False)
            editors.set_aside(name, folder / "hparams.yaml")


# Run stores: `editsafety report FOLDER`.


@cache
def run() -> Files:
    """The plan and the store of a small run, made as a user makes one."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", "--model", "pocket-neo", "--editor", "noop", "--limit", "1", "--texts", "3", "--controls", "0"]
        command = [sys.executable, "-m", "editsafety", *words, "--quiet", "--out", folder, "--device", "cpu"]
        subprocess.run(command, check=False, capture_output=True)
        return Files({name: Whole((Path(folder) / name).read_bytes()) for name in ("plan.json", "store.sqlite")})


def _runs() -> SearchStrategy[Files]:
    def damaged() -> SearchStrategy[Files]:
        whole = run()
        store = st.one_of(stores.rewritten(whole["store.sqlite"]), mutations.damaged(st.just(whole["store.sqlite"])))
        plan = mutations.changed(st.just(whole["plan.json"]).map(json.loads)).map(mutations.written)
        other = st.one_of(plan, mutations.damaged(st.just(whole["plan.json"])))
        stores_only = store.map(lambda data: Files({**whole, "store.sqlite": data}))
        return st.one_of(stores_only, stores_only, other.map(lambda data: Files({**whole, "plan.json": data})))

    return st.deferred(damaged)


def read_run(folder: Path) -> None:
    """Judge a stored run again, and show it in every format."""
    found = stored(folder)
    for name in ("json", "markdown", "junit", "terminal"):
        reporter(name)(found, ReportPlace("suites", folder))
    assert found.exit_code != 0 or found.judged, "nothing was judged, and it passed"


POLICY = yaml.safe_load((shipped("suites") / "policies" / "default.yaml").read_text(encoding="utf-8"))
TARGETS: tuple[Target, ...] = (
    Target("deltas", _one("edit.safetensors", st.deferred(lambda: tensors.files(delta()))), read_delta, 120),
    *(Target(f"artifacts-{name}", _artifacts(name), read_artifacts(name), 25) for name in PREPARED),
    Target("requests", _one("rows.json", _data(st.sampled_from(layouts.ROWS))), read_requests, 150),
    Target("texts", _one("rows.json", _data(st.sampled_from(layouts.TEXTS))), read_requests, 40),
    Target("policies", _one("policy.yaml", _yaml(st.just(POLICY))), read_policy, 80),
    Target("hyperparameters", _one("hparams.yaml", _yaml(st.sampled_from(layouts.HPARAMS))), read_hparams, 80),
    Target("runs", _runs(), read_run, 60),
)
