"""A sweep on a real Ray cluster of two nodes on this machine; a worker or a node that is killed changes nothing.

Needs the extra `ray` (tox -e ray); every test here takes the better part of a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from tests.system.commands import Done, ended, given, report, start, without_times

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'editsafety[ray]', or tox -e ray")
pytestmark = pytest.mark.thorough
PATIENCE = 300.0  # seconds for a sweep on a busy machine
OBJECTS = 80 * 2**20  # bytes of the smallest object store that Ray takes
SLOW = '''

class Slow(Nudge):
    """Takes its time, and says who is at which case."""

    def edit(self, requests, carry=None):
        import os, time
        from pathlib import Path
        here = Path(__file__).parent
        (here / f"at-{requests[0].id}").write_text(f"{os.getpid()} {os.getppid()}")
        time.sleep(float(os.environ.get("SLOW", "1")))
        return super().edit(requests)
'''


class Nodes:
    """A cluster of a head without any core and two nodes with one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECTS}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1, object_store_memory=OBJECTS) for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_one(self) -> None:
        """A node goes without a word, and all that runs on it."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def shutdown(self) -> None:
        self.cluster.shutdown()


@pytest.fixture
def slow(paths: dict[str, str]) -> dict[str, str]:
    """The tiny world with an editor that takes its time."""
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + SLOW)
    return paths


@pytest.fixture
def nodes(slow: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.delenv("EDITSAFETY_IN_PROCESS")  # editors run beside their workers, as they do for users
    made = Nodes()
    yield made
    made.shutdown()


def words(paths: dict[str, str], **more: Any) -> list[str]:
    return given(paths, "Slow", "noop", controls=1, **more)


def sweep(nodes: Nodes, paths: dict[str, str], place: Path) -> subprocess.Popen[str]:
    return start("sweep", *words(paths, address=nodes.address, out="swept"), cwd=place)


def counted(place: Path) -> int:
    if not (place / "swept" / STORE).exists():
        return 0
    with closing(Store(place / "swept" / STORE)) as store:
        return store.count()


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.05)


def straight(command: Callable[..., Done], paths: dict[str, str]) -> dict[str, Any]:
    assert command("run", *words(paths, out="straight")).code == 11
    return without_times(report("straight"))


def test_a_worker_that_is_killed_in_mid_run_loses_only_what_it_was_at(
    nodes: Nodes, slow: dict[str, str], command: Callable[..., Done], tmp_path: Path
) -> None:
    at = tmp_path / "at-normal-0"
    running = sweep(nodes, slow, tmp_path)
    wait_for(at.exists, running)
    editors, worker = map(int, at.read_text().split())
    before = counted(tmp_path)
    os.kill(worker, signal.SIGKILL)
    done = ended(running, PATIENCE)
    assert done.code == 11, done.err
    assert " died: " in done.err
    assert before < 9, "it was killed in mid-run"
    assert without_times(report("swept")) == straight(command, slow)
    assert not Path(f"/proc/{editors}").exists(), "the process of its editors ended with it"


def test_a_node_that_is_killed_in_mid_run_loses_only_what_it_was_at(
    nodes: Nodes, slow: dict[str, str], command: Callable[..., Done], tmp_path: Path
) -> None:
    running = sweep(nodes, slow, tmp_path)
    wait_for(lambda: counted(tmp_path) >= 2, running)
    nodes.kill_one()
    done = ended(running, PATIENCE)
    assert done.code == 11, done.err
    assert " died: " in done.err
    assert without_times(report("swept")) == straight(command, slow)


def test_ctrl_c_is_2_with_a_partial_report_and_the_same_command_goes_on(
    nodes: Nodes, slow: dict[str, str], command: Callable[..., Done], tmp_path: Path
) -> None:
    running = sweep(nodes, slow, tmp_path)
    wait_for(lambda: counted(tmp_path) >= 2, running)
    running.send_signal(signal.SIGINT)
    stopped = ended(running, PATIENCE)
    assert stopped.code == 2, stopped.err
    kept = report("swept")["counts"]["judged"]
    assert 2 <= kept < 8
    done = ended(sweep(nodes, slow, tmp_path), PATIENCE)
    assert done.code == 11, done.err
    assert without_times(report("swept")) == straight(command, slow)


def test_where_there_is_no_cluster_or_no_room_one_sentence_says_so(
    nodes: Nodes, slow: dict[str, str], tmp_path: Path
) -> None:
    nowhere = ended(start("sweep", *words(slow, address="127.0.0.1:1"), cwd=tmp_path))
    assert nowhere.code == 4
    assert "no Ray cluster at address '127.0.0.1:1'" in nowhere.err
    large = ended(start("sweep", *words(slow, address=nodes.address, cpus_per_worker=3), cwd=tmp_path))
    assert large.code == 4
    assert "a worker needs 3 CPU" in large.err
    assert "no node has room for one" in large.err
