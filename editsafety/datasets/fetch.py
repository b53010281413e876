"""Bring a published data set to the cache: a pinned address, size and sha256, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from filelock import FileLock, Timeout

from editsafety.errors import ChecksumError, DataError, UnknownNameError

Progress = Callable[[int, int], None]
RAW = "https://raw.githubusercontent.com"
ME_PPL = f"{RAW}/WanliYoung/Collapse-in-Model-Editing/ba8122e46ce31d3518a44e942540179cc7531f15/data/ME-PPL"
QAEDIT = f"{RAW}/WanliYoung/Revisit-Editing-Evaluation/d6025e0ee9731d3b59b84ea242dc06bf0e0c8a74/data"
FT4EDITING = f"{RAW}/WanliYoung/FT4Editing/HEAD/data"
CHUNK = 1 << 16
PATIENCE = 30.0  # seconds without a byte from the server
WAIT = 900.0  # seconds for another process that is fetching the same file


@dataclass(frozen=True, slots=True)
class Source:
    """A file at a public address."""

    # By which it is fetched.
    name: str
    # Where it is, at a fixed commit.
    url: str
    # Of its bytes.
    sha256: str
    # In bytes.
    size: int
    # That of its repository.
    licence: str
    # The layout it has.
    loader: str
    # What it is, in a line.
    about: str

    @property
    def file_name(self) -> str:
        """The name in the cache: ours, with the ending of theirs."""
        return self.name + PurePosixPath(self.url).suffix


SOURCES = MappingProxyType(
    {
        source.name: source
        for source in (
            Source(
                "me_ppl_50",
                f"{ME_PPL}/ME-PPL_50.json",
                "55f3b951d2c4287b90d9e511f256efb9d47461f0da408a17dac5ffcef685c4e4",
                9527,
                "MIT",
                "me_ppl",
                "50 sentences for perplexity: the default of the Butterfly Effect paper",
            ),
            Source(
                "me_ppl_1k",
                f"{ME_PPL}/ME-PPL_1k.json",
                "71e29fc5daf443b35ec16c8a9e91e1f4398b5b84ca7c25393639c066b65b5afb",
                196508,
                "MIT",
                "me_ppl",
                "1,000 sentences for perplexity; the 50 are among them",
            ),
            Source(
                "me_ppl_10k",
                f"{ME_PPL}/ME-PPL.json",
                "c09b3d8191ffad954bf3b5e96dac84a7caf83d57c15e262b1d81ef6590742fb4",
                1975615,
                "MIT",
                "me_ppl",
                "10,000 sentences for perplexity; the 1,000 are among them",
            ),
            Source(
                "qaedit_1k",
                f"{QAEDIT}/QAEdit_inter_1k.json",
                "640e1d279759263fdaae543a385680d21a55aa3597ca8b597ffd7937fef07c42",
                1117792,
                "Apache-2.0",
                "qaedit",
                "1,000 questions of QAEdit with five neighbours each",
            ),
            Source(
                "zsre_3k",
                f"{FT4EDITING}/zsre/zsre_3k.json",
                "45431e9b32d2dea71b6697a47433e88551a8bdf8c4fb5756779038fd8d7f82dc",
                1584964,
                "MIT",
                "zsre",
                "3,000 questions of zsRE",
            ),
            Source(
                "wikibigedit_3k",
                f"{FT4EDITING}/wikibigedit/wikibigedit_3k.json",
                "0d8bd37239f9c6c0c2e34d4f95f59e749ab8cb9dccbf2517622da16386d9ca82",
                1269200,
                "MIT",
                "wikibigedit",
                "3,000 changes of Wikidata as questions, in the flat layout",
            ),
        )
    }
)

# Published without an address that could be pinned; the sentence says what to do instead.
ELSEWHERE = MappingProxyType(
    {
        "counterfact": "its authors serve it, without a version, at https://rome.baulab.info/data/dsets/. "
        "Download it and give counterfact:PATH.",
        "hardcf": "its authors keep it on a drive (see the README of WanliYoung/Collapse-in-Model-Editing). "
        "Download it and give hardcf:PATH.",
        "hardedit": "the authors' file is kept on a drive (see the README of WanliYoung/Collapse-in-Model-Editing). "
        "Download it and give hardedit:PATH; hardedit alone is the shipped set after the same recipe.",
        "zsre": "the full set has no pinned address; zsre_3k can be fetched, or give zsre:PATH.",
    }
)


def cache_folder() -> Path:
    """Where fetched data sets are: `data` in `$EDITSAFETY_CACHE`, or in `editsafety` in the user's cache folder."""
    given = os.environ.get("EDITSAFETY_CACHE")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editsafety"
    return (Path(given) if given else root) / "data"


def bring(name: str, *, offline: bool = False) -> Path:
    """The file of a data set that was asked for by its name: fetched now if it is not here.

    One line on standard error says so: whoever names a published data set wants it, and the network is never asked in
    silence. Raises what `fetch` raises.
    """
    source = _source(name)
    path = cache_folder() / source.file_name
    whole = path.is_file() and digest(path) == source.sha256
    if not whole and not offline:
        state = "was altered" if path.is_file() else "is not here yet"
        sys.stderr.write(f"{name} {state}: fetching {source.size / 1024:,.0f} KiB from {source.url}\n")
    return path if whole else fetch(source, offline=offline)


def fetch(
    name: str | Source, cache: Path | None = None, *, offline: bool = False, progress: Progress | None = None
) -> Path:
    """Bring a data set into the cache and return its file; at once, and without network, when it is there already.

    Safe with several processes at once: one downloads, the others wait and find it. `progress(received, size)` is
    called while bytes arrive. Raises UnknownNameError, ChecksumError (bytes that are not the pinned ones) or DataError
    (no network, a web page instead of the file, a broken connection); the cache keeps what it had.
    """
    source = name if isinstance(name, Source) else _source(name)
    folder = cache or cache_folder()
    path = folder / source.file_name
    if path.is_file() and digest(path) == source.sha256:
        return path
    if offline:
        state = "is in the cache but altered" if path.is_file() else "is not in the cache"
        raise DataError(
            f"{source.name} {state} ({path}) and offline mode forbids fetching it. Fetch it once online: "
            f"editsafety data fetch {source.name}. Or name a data set that ships (editsafety data list)."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{source.file_name}.lock", timeout=WAIT):
            if not (path.is_file() and digest(path) == source.sha256):
                _download(source, path, progress)
    except Timeout as error:
        raise DataError(f"another process has been fetching {source.name} for {WAIT:.0f} s. Is it hanging?") from error
    except OSError as error:
        raise DataError(f"{folder}: {source.name} cannot be kept there ({error}). Set EDITSAFETY_CACHE.") from error
    return path


def digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source(name: str) -> Source:
    if name in ELSEWHERE:
        raise DataError(f"{name!r} cannot be fetched: {ELSEWHERE[name]}")
    if name not in SOURCES:
        raise UnknownNameError("data set", name, SOURCES)
    return SOURCES[name]


def _download(source: Source, path: Path, progress: Progress | None) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        found = _receive(source, part, progress)
        if found != source.sha256:
            raise ChecksumError(
                f"{source.name}: {source.url} sent bytes with sha256 {found}, expected {source.sha256}. "
                "The file has changed there, or something on the way altered it."
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _receive(source: Source, part: Path, progress: Progress | None) -> str:
    """Write what the server sends to `part`; returns its sha256."""
    request = urllib.request.Request(source.url, headers={"User-Agent": "editsafety", "Accept-Encoding": "identity"})
    sha, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer, part.open("wb") as file:
            promised = _promised(source, answer.headers.get("Content-Length"))
            while chunk := answer.read(CHUNK):
                if received == 0:
                    _refuse_page(source, answer.headers.get_content_type(), chunk)
                received += len(chunk)
                if received > source.size:
                    raise ChecksumError(f"{source.name}: {source.url} sends more than the pinned {source.size} bytes.")
                sha.update(chunk)
                file.write(chunk)
                if progress:
                    progress(received, source.size)
    except urllib.error.HTTPError as error:
        with error:
            raise DataError(
                f"{source.name}: {source.url} answered {error.code} {_first_line(error.reason)}."
            ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: it sends on to what is no address
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{source.name}: cannot fetch {source.url}: {reason}. Nothing was kept; try again.") from error
    if received < promised:
        raise DataError(f"{source.name}: the connection ended after {received} of {promised} bytes. Try again.")
    return sha.hexdigest()


def _promised(source: Source, length: str | None) -> int:
    """How many bytes the server says it sends; the pinned number when it does not say."""
    if length is None:
        return source.size
    if not (length.isascii() and length.strip().isdigit()) or len(length) > 20:
        raise DataError(f"{source.name}: {source.url} says that it sends {length!r:.40} bytes. Nothing was kept.")
    return int(length)


def _first_line(reason: object) -> str:
    """What a server gives as a reason is its own; of several lines (a redirect loop has two) the first says it."""
    return str(reason).strip().partition("\n")[0]


def _refuse_page(source: Source, kind: str, chunk: bytes) -> None:
    start = chunk.lstrip()[:15].lower()
    if kind == "text/html" or start.startswith((b"<!doctype html", b"<html")):
        raise DataError(
            f"{source.name}: the server sent a web page, not the file ({source.url}). "
            "It may ask for a login or have reached a quota: open the address in a browser."
        )
