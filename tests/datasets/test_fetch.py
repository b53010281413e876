"""Fetching from a server that is good, altered, slow, dead, or sends something else. Loopback only."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import pytest
from filelock import FileLock

from editsafety import datasets
from editsafety.datasets import fetch
from editsafety.errors import ChecksumError, DataError, UnknownNameError
from tests.datasets.conftest import BODY, Server

GOOD = "sample.json"


def visible(folder: Path) -> list[str]:
    """What is in the cache besides the lock."""
    return sorted(path.name for path in folder.glob("*") if not path.name.endswith(".lock"))


def test_a_good_file_arrives_whole_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch.fetch(server.source(), tmp_path / "new" / "cache", progress=lambda *at: seen.append(at))
    assert path.read_bytes() == BODY
    assert visible(path.parent) == [GOOD]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert len(datasets.texts(f"me_ppl:{path}")) == 5000


def test_a_server_that_does_not_say_how_much_it_sends_is_fine(server: Server, tmp_path: Path) -> None:
    assert fetch.fetch(server.source("unsized.json"), tmp_path).read_bytes() == BODY


def test_what_is_there_and_right_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch.fetch(server.source(), tmp_path)
    fetch.fetch(server.source(), tmp_path)
    fetch.fetch(server.source(), tmp_path, offline=True)
    assert server.asked == ["/good.json"]


def test_a_file_that_was_altered_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / GOOD).write_bytes(BODY[:-1])
    assert fetch.fetch(server.source(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("altered.json", ChecksumError, "sent bytes with sha256"),
        ("short.json", ChecksumError, "sent bytes with sha256"),
        ("long.json", ChecksumError, "sends more than the pinned"),
        ("page.json", DataError, "the server sent a web page, not the file"),
        ("disguised.json", DataError, "the server sent a web page, not the file"),
        ("dies.json", DataError, f"{len(BODY) // 2} of {len(BODY)} bytes"),
        ("dies-unsized.json", DataError, f"{len(BODY) // 2} of {len(BODY)} bytes"),
        ("absent.json", DataError, "answered 404"),
        ("length-abc.json", DataError, "says that it sends 'abc' bytes"),
        ("length-negative.json", DataError, "says that it sends '-5' bytes"),
        ("length-huge.json", DataError, "says that it sends '99999"),
        ("length-more.json", DataError, f"{len(BODY)} of {len(BODY) + 1} bytes"),
        ("loop.json", DataError, "answered 302 The HTTP server returned a redirect error"),
        ("nowhere.json", DataError, "cannot fetch"),
        ("file.json", DataError, "answered 302"),
        ("reason.json", DataError, "answered 500"),
        ("no-http.json", DataError, "cannot fetch"),
        ("silent.json", DataError, "cannot fetch"),
        ("status-abc.json", DataError, "cannot fetch"),
        ("header-bomb.json", DataError, "cannot fetch"),
        ("chunk-abc.json", DataError, "cannot fetch"),
    ],
)
def test_anything_else_is_refused_and_leaves_the_cache_as_it_was(
    path: str, kind: type[Exception], says: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / GOOD).write_bytes(b"an older file")
    with pytest.raises(kind) as error:
        fetch.fetch(server.source(path), tmp_path)
    assert says in str(error.value)
    assert str(error.value).startswith("sample: ")
    assert visible(tmp_path) == [GOOD]
    assert (tmp_path / GOOD).read_bytes() == b"an older file"


def test_a_wrong_checksum_names_both(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match=rf"sha256 {server.source().sha256}, expected {'0' * 64}"):
        fetch.fetch(server.source(sha256="0" * 64), tmp_path)


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path, server: Server) -> None:
    source = server.source(url="http://127.0.0.1:9/x.json")
    with pytest.raises(DataError, match=r"cannot fetch http://127\.0\.0\.1:9/x\.json: .*Nothing was kept"):
        fetch.fetch(source, tmp_path)


def test_a_server_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", 0.1)
    server.hold.clear()
    with pytest.raises(DataError, match="timed out"):
        fetch.fetch(server.source(), tmp_path)
    server.hold.set()
    assert visible(tmp_path) == []


def test_an_interruption_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(server.source(), tmp_path, progress=interrupt)
    assert visible(tmp_path) == []


def test_of_several_at_once_one_fetches_and_all_find_it(server: Server, tmp_path: Path) -> None:
    server.hold.clear()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(fetch.fetch, server.source(), tmp_path) for _ in range(4)]
        threading.Timer(0.2, server.hold.set).start()
        paths = {future.result().read_bytes() for future in waiting}
    assert paths == {BODY}
    assert server.asked == ["/good.json"]


def test_a_fetch_that_hangs_elsewhere_is_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "WAIT", 0.05)
    with (
        FileLock(tmp_path / f".{GOOD}.lock"),
        pytest.raises(DataError, match="another process has been fetching"),
    ):
        fetch.fetch(server.source(), tmp_path)


def test_offline_is_a_sentence_and_asks_no_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not in the cache .*offline mode forbids"):
        fetch.fetch(server.source(), tmp_path, offline=True)
    (tmp_path / GOOD).write_bytes(b"altered")
    with pytest.raises(DataError, match="is in the cache but altered"):
        fetch.fetch(server.source(), tmp_path, offline=True)
    assert server.asked == []


def test_a_cache_that_cannot_be_written_is_a_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be kept there"):
        fetch.fetch(server.source(), tmp_path / "file")


def test_a_fetched_data_set_is_read_by_its_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SOURCES", {"sample": server.source()})
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    assert fetch.fetch("sample") == tmp_path / "data" / GOOD
    assert datasets.texts("sample", limit=1, offline=True) == (" text number 0",)


def test_what_is_asked_for_by_its_name_is_fetched_once_and_one_line_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "SOURCES", {"sample": server.source()})
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    assert len(datasets.texts("sample")) == 5000
    line = f"sample is not here yet: fetching {len(BODY) / 1024:.0f} KiB from {server.url}/good.json\n"
    assert capsys.readouterr() == ("", line)
    assert datasets.texts("sample", limit=1) == (" text number 0",)
    assert capsys.readouterr() == ("", "")
    (tmp_path / "data" / GOOD).write_bytes(b"[]")
    assert len(datasets.texts("sample")) == 5000
    assert capsys.readouterr().err.startswith("sample was altered: fetching")
    assert server.asked == ["/good.json"] * 2


def test_names_that_cannot_be_fetched_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'me_ppl_50'"):
        fetch.fetch("me_ppl_5", tmp_path)
    with pytest.raises(DataError, match="'hardcf' cannot be fetched"):
        fetch.fetch("hardcf", tmp_path)


@pytest.mark.parametrize("source", fetch.SOURCES.values(), ids=lambda source: source.name)
def test_every_pinned_row_is_complete(source: fetch.Source) -> None:
    assert urlparse(source.url).scheme == "https"
    assert len(bytes.fromhex(source.sha256)) == 32
    assert source.size > 0
    assert source.licence
    assert source.about
    assert source.loader in datasets.loaders()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EDITSAFETY_CACHE", raising=False)
    assert fetch.cache_folder() == tmp_path / "editsafety" / "data"
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "other"))
    assert fetch.cache_folder() == tmp_path / "other" / "data"
