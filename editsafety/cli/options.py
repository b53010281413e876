"""Options that several commands share, and what they are made into."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editsafety import escaping
from editsafety.errors import EditorError, EditSafetyError, UsageError, sentence_of
from editsafety.foreign import contained
from editsafety.names import label
from editsafety.progress import Progress
from editsafety.runs.settings import Settings, redeclared

if TYPE_CHECKING:
    from editsafety.datasets.reading import Sifted
    from editsafety.datasets.request import EditRequest
    from editsafety.editors import Editor
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec
    from editsafety.runs.offers import Offer

# Fields of Settings that say how a model is loaded, and how it is run.
LOADING = ("device", "dtype", "device_map", "revision", "offline", "trust_remote_code", "plain")

Model = Annotated[str, typer.Option("--model", "-m", help="pocket-..., a hub id, a local folder, or random:<config>")]
EditorName = Annotated[
    str, typer.Option("--editor", "-e", help="an editor's name, path/to/file.py:Class, or 'command: ...'")
]
HparamsFile = Annotated[Path | None, typer.Option("--hparams", help="hyperparameters in place of the shipped ones")]
Limit = Annotated[int | None, typer.Option(min=1, help="maximum number of requests", show_default="all")]
TextsFrom = Annotated[
    str,
    typer.Option(help="texts for perplexity: a data set, LOADER:FILE, or a file", show_default="those of the model"),
]
PolicyName = Annotated[
    str, typer.Option("--policy", help="the limits of the verdict: a policy's name, or a .yaml file")
]
CollapseAbove = Annotated[
    float | None,
    typer.Option(
        "--collapse-above",
        min=1,
        metavar="RATIO",
        help="a model has collapsed past this multiple of its perplexity",
        show_default="the policy's limit",
    ),
]
Chat = Annotated[bool, typer.Option("--chat", help="edit and ask through the chat template of the model's tokenizer")]
Offline = Annotated[bool, typer.Option("--offline", help="never ask the network")]
Seed = Annotated[int, typer.Option(help="seed of everything random")]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="leave rows of requests out that cannot be used, and say which")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no summary")]


def known_facts(more: str = "") -> Any:
    """The option of a command that works on facts which a model knows; `more` is what it needs of them beside that."""
    return typer.Option(
        help=f"facts with their true answers{more}: a data set, LOADER:FILE or FILE.jsonl",
        show_default="the ordinary requests of the model",
    )


class Interrupted(Exception):
    """The work was stopped by the user; what was finished is kept."""


class WasInterrupted(Exception):
    """What is told of was stopped by the user, and the exit code says so; typer takes a plain 2 for a usage error."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is loaded: the same options for every command that loads one."""

    device: str = redeclared(Settings, "device")
    dtype: str = redeclared(Settings, "dtype")
    revision: str | None = redeclared(Settings, "revision")
    offline: bool = redeclared(Settings, "offline")
    trust_remote_code: bool = redeclared(Settings, "trust_remote_code")
    device_map: str | None = redeclared(Settings, "device_map")

    def spec(self, model: str, *, chat: bool = False) -> ModelSpec:
        """What is loaded for the name of a model. Imports torch."""
        from editsafety.model.loading import ModelSpec

        return ModelSpec.asked(model, self, chat=chat)

    def words(self) -> list[str]:
        """What has to be typed for the same, where it is not what is usual."""
        usual, typed = Settings((), ()), list[str]()
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if value != getattr(usual, name):
                typed += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return typed

    def load(self, model: str, *, chat: bool = False) -> ModelHandle:
        """The model of that name; in which dtype and on which devices is told where that is a choice. Imports torch.

        With `chat` it is asked through the chat template of its tokenizer.

        Raises ModelError (not available) or UsageError.
        """
        from editsafety.model.handle import ModelHandle

        asked = self.spec(model, chat=chat)
        handle = ModelHandle.load(asked)
        for said in handle.announcements(asked):
            typer.echo(said, err=True)
        return handle


def read_requests(
    spec: str, limit: int | None = None, *, skip_bad_rows: bool = False, offline: bool = False
) -> tuple[EditRequest, ...]:
    """The requests of a data set; what of it is in none of them is told on standard error. Raises DataError."""
    from editsafety import datasets

    found = datasets.read_requests(spec, limit, skip_bad_rows=skip_bad_rows, offline=offline)
    return _told(spec, found)


def requests_for(
    model: str, spec: str, settings: Settings, loading: Loading, limit: int | None = None
) -> tuple[EditRequest, ...]:
    """The requests of a data set that a run on this model takes; what is not among them is told on standard error.

    Of HardEdit the hard ones for this model come first; of the ordinary ones those that are hard for it are left out.
    Raises DataError.
    """
    from editsafety.runs.offers import offer

    asked = replace(settings, limit=limit, revision=loading.revision, offline=loading.offline)
    found = offer(asked, model, spec)
    return _told(spec, found)


def _told(spec: str, found: Offer | Sifted) -> tuple[EditRequest, ...]:
    for line in found.sentences:
        typer.echo(f"{spec}: {line}", err=True)
    return found.requests


def make_editor(handle: ModelHandle, name: str, hparams: Path | None, seed: int) -> Editor:
    """An editor on a loaded model.

    What its hyperparameter file says in vain, and whose numbers it has where the model has none, is told on standard
    error.
    """
    from editsafety import editors
    from editsafety.lab.tools import artifacts_for

    with editors_own(name):
        made = editors.make(name, handle, artifacts_for(handle), path=hparams, seed=seed)
    carried = editors.carried_from(name, handle.name, hparams, editors.build_of(handle))
    if carried is not None:
        typer.echo(carried.announce(made.name, handle.name), err=True)
    for line in editors.set_aside(name, hparams):
        typer.echo(f"{made.name}: {line}", err=True)
    return made


@contextmanager
def editors_own(name: str) -> Iterator[None]:
    """An editor's own code runs inside: whatever it raises is an EditorError with a sentence and a place."""
    from editsafety.lab.attempt import where_raised

    try:
        with contained(label(name)):
            yield
    except EditSafetyError:
        raise
    except Exception as error:
        raise EditorError(f"{label(name)} failed: {sentence_of(error)} ({where_raised(error)}).") from error


def refuse_unwritable(path: Path | None) -> None:
    """Raise UsageError where no file can be written at `path`: better before the slow work than after it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder. Give the path of a file to write.")
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir():
        raise UsageError(f"{path}: {place} is a file, so there can be nothing in it. Give another path.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: {place} is read-only. Give another path.")


def show_progress(*, quiet: bool) -> Progress:
    """Progress on standard error; none with --quiet."""
    return Progress(escaping.below(sys.stderr), "quiet" if quiet else "auto")


def collapse_limit(given: float | None, policy: str = "default") -> float:
    """The perplexity ratio past which a model has collapsed: --collapse-above, else what the policy says."""
    from editsafety.judging.policy import Policy

    return Policy.read(policy).collapse if given is None else given


def collapse_limit_of_runs(given: float | None, folders: Sequence[Path]) -> float:
    """The same for stored runs: what they were made with, --collapse-above or else a policy, says.

    A run whose policy cannot be read any more is taken as one of the default policy. Raises UsageError where runs
    disagree.
    """
    from editsafety.runs.folders import about

    if given is not None:
        return given
    limits: dict[float, Path] = {}
    for folder in folders:
        stored = about(folder).get("settings")
        settings = stored if isinstance(stored, dict) else {}
        own, policy = settings.get("collapse_above"), settings.get("policy")
        try:
            limit = collapse_limit(
                own if isinstance(own, int | float) else None, policy if isinstance(policy, str) else "default"
            )
        except UsageError:
            limit = collapse_limit(None)
        limits.setdefault(limit, folder)
    if len(limits) > 1:
        told = ", ".join(f"{folder} past {limit:g}x" for limit, folder in limits.items())
        raise UsageError(f"these runs disagree on what a collapse is: {told}. Give --collapse-above.")
    return next(iter(limits), collapse_limit(None))
