"""Readiness: what is installed and at hand for a run, what of it is not enough, and what to do about each."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from editsafety import discovery, editors
from editsafety.datasets import fetch as fetching
from editsafety.datasets import manifest
from editsafety.errors import EditSafetyError
from editsafety.hyperparameters.carried import Build
from editsafety.model.loading import ModelSpec, devices_of, read_config
from editsafety.model.room import GIB, WIDE, folder_of, free_memory, named, needed_memory, parameters, settled
from editsafety.names import label
from editsafety.numbers import in_bytes
from editsafety.shipped import shipped

ROOM = 1 * GIB  # on the disk of the reports: a record takes some tens of kB, a course's checkpoint more
DISTRIBUTION = "editsafety"
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")


class Standing(StrEnum):
    """How a thing stands: nothing to do, something to know, something to do first."""

    READY = "ready"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Readiness:
    """One thing that a run needs or may use; `todo` is empty where nothing has to be done."""

    about: str
    state: Standing
    found: str
    todo: str = ""


def examine(spec: ModelSpec | None, names: tuple[str, ...], reports: Path) -> Iterator[Readiness]:
    """Everything, in the order in which one would mend it. Loads no model and asks no network."""
    yield from packages()
    yield from plugins()
    yield from devices()
    yield from data_sets()
    yield space(reports)
    if spec is not None:
        yield from of_model(spec, names)


def packages() -> Iterator[Readiness]:
    """Python, what the package needs, and its extras, against the ranges that it declares."""
    yield Readiness("python", Standing.READY, f"{platform.python_version()} ({sys.executable})")
    extras: dict[str, list[str]] = {}
    for text in metadata.requires(DISTRIBUTION) or ():
        wanted = Requirement(text)
        extra = _EXTRA.search(str(wanted.marker or ""))
        said, good = _installed(wanted)
        if extra is not None:
            extras.setdefault(extra[1], []).extend([] if good else [said])
        elif good:
            yield Readiness(wanted.name, Standing.READY, said)
        else:
            yield Readiness(wanted.name, Standing.MISSING, said, f'pip install "{wanted.name}{wanted.specifier}"')
    for name, lacking in extras.items():
        todo = f'pip install "{DISTRIBUTION}[{name}]", if what it brings is wanted' if lacking else ""
        yield Readiness(
            f"[{name}]", Standing.NOTE if lacking else Standing.READY, "; ".join(lacking) or "all there", todo
        )


def plugins() -> Iterator[Readiness]:
    """Editors, measures and data sets that other packages bring: they take part in every run."""
    for name, said in discovery.plugins().items():
        yield Readiness(f"plug-in {name}", Standing.READY, said)


def devices() -> Iterator[Readiness]:
    """Cores and accelerators, with the memory that is free now."""
    free = free_memory()
    said = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Readiness("cpu", Standing.READY, said if free is None else f"{said}, {in_bytes(free)} of memory free")
    for number in range(torch.cuda.device_count()):
        left, total = torch.cuda.mem_get_info(number)
        name = f"{torch.cuda.get_device_name(number)}, {in_bytes(left)} of {in_bytes(total)} free"
        yield Readiness(f"cuda:{number}", Standing.READY, name)
    if not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        yield Readiness("gpu", Standing.NOTE, built, "runs are on the CPU; pocket models need no more")


def data_sets() -> Iterator[Readiness]:
    """Whether shipped data are whole, and which of those that can be fetched are here."""
    wrong = manifest.verify(shipped("data"))
    todo = "install the package again" if wrong else ""
    yield Readiness("shipped data", Standing.MISSING if wrong else Standing.READY, "; ".join(wrong) or "whole", todo)
    for name, source in fetching.SOURCES.items():
        path = fetching.cache_folder() / source.file_name
        if not path.is_file():
            yield Readiness(name, Standing.NOTE, "not fetched", f"editsafety data fetch {name}")
        elif fetching.digest(path) != source.sha256:
            yield Readiness(name, Standing.MISSING, "altered since it was fetched", f"editsafety data fetch {name}")
        else:
            yield Readiness(name, Standing.READY, str(path))


def space(reports: Path) -> Readiness:
    """Room on the disk to which reports are written, and whether they can be written there at all."""
    place = next(path for path in (reports.absolute(), *reports.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Readiness("reports", Standing.MISSING, f"{place} cannot be written to", "give another --out")
    free = shutil.disk_usage(place).free
    short = free < ROOM
    todo = f"make room, {in_bytes(ROOM)} at least, or give another --out" if short else ""
    return Readiness("reports", Standing.MISSING if short else Standing.READY, f"{place}, {in_bytes(free)} free", todo)


def of_model(spec: ModelSpec, names: tuple[str, ...]) -> Iterator[Readiness]:
    """Whether a model is here, fits, and has hyperparameters of the editors."""
    try:
        devices = devices_of(spec)
        count = parameters(spec)
    except EditSafetyError as error:
        yield Readiness(spec.slug, Standing.MISSING, str(error))
        return
    if count is None:
        missing = spec.offline
        todo = "run once without --offline, or give a folder" if missing else "the first run fetches or makes it"
        yield Readiness(spec.slug, Standing.MISSING if missing else Standing.NOTE, "not on this machine yet", todo)
    else:
        yield _memory(spec, devices, count)
    for editor in names:
        yield _hyperparameters(editor, spec, count)


def _memory(spec: ModelSpec, devices: Sequence[torch.device], count: int) -> Readiness:
    dtype = settled(spec, devices).dtype
    needed, free = needed_memory(count, dtype), free_memory(*devices)
    said = f"{count / 1e6:.1f} M parameters, about {in_bytes(needed)} as {dtype} on {named(devices)}"
    if free is None or needed <= free:
        return Readiness(spec.slug, Standing.READY, said)
    todo = (
        "give --dtype bfloat16, a smaller model, or free memory"
        if dtype == WIDE
        else "give a smaller model, or free memory"
    )
    return Readiness(spec.slug, Standing.MISSING, f"{said}; {in_bytes(free)} are free", todo)


def _hyperparameters(editor: str, spec: ModelSpec, count: int | None) -> Readiness:
    about, todo = f"{label(editor)} for {spec.slug}", f"give --hparams {label(editor)}=FILE.yaml"
    try:
        build = None if count is None else _build(spec, count)
        editors.read_hparams(editor, spec.slug, build=build)
        carried = editors.carried_from(editor, spec.slug, None, build)
    except EditSafetyError as error:
        return Readiness(about, Standing.MISSING, str(error), todo)
    if carried is not None:
        return Readiness(
            about, Standing.NOTE, f"no hyperparameters ship; they are {carried.sentence}", f"{todo}, or run"
        )
    return Readiness(about, Standing.READY, "hyperparameters are there")


def _build(spec: ModelSpec, count: int) -> Build:
    """How a model is built, by its config. Raises ModelError for one that cannot be read."""
    folder = folder_of(spec)
    config = read_config(spec.name if folder is None else str(folder))
    return Build(config.model_type, config.get_text_config().num_hidden_layers, count)


def _installed(wanted: Requirement) -> tuple[str, bool]:
    """What is installed of a requirement, in words, and whether that is enough."""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed", False
    good = wanted.specifier.contains(version, prereleases=True)
    return version if good else f"{wanted.name} {version}, expected {wanted.specifier}", good
