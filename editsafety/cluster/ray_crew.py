"""RayCrew: workers as actors of Ray, one for each GPU or group of cores. The only file that knows Ray."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from editsafety.cluster.crew import CrewNews
from editsafety.cluster.work import Brief, Parcel, Work
from editsafety.cluster.worker import Worker
from editsafety.errors import ClusterError, EditSafetyError

PATIENCE = 10.0  # seconds for a cluster to answer that is said to be there
LOOK = 5.0  # seconds after which `hear` gives up, so that whoever waits can look around


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker is to have, as far as somebody said so."""

    cpus: int = 1
    # None: one where the cluster has any.
    gpus: float | None = None
    # Bytes of main memory of a worker whose model is on the CPU; 0 where nobody knows.
    memory: Callable[[], int] = lambda: 0

    def slot(self, nodes: Sequence[Mapping[str, float]]) -> Slot:
        """What of the nodes of a cluster that comes to."""
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU") for node in nodes))
        return Slot(self.cpus, gpus, 0 if gpus else self.memory())


@dataclass(frozen=True, slots=True)
class Slot:
    """What of a machine a worker has for itself."""

    cpus: int = 1
    gpus: float = 0.0  # a half lets two workers share one
    memory: int = 0  # bytes of main memory; 0 where nobody knows

    def __str__(self) -> str:
        gpus, memory = f", {self.gpus:g} GPU" if self.gpus else "", f", {_in_gib(self.memory)}" if self.memory else ""
        return f"{self.cpus} CPU{gpus}{memory}"

    def fits(self, free: Mapping[str, float]) -> int:
        """How many such slots there are in what a node of Ray has."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return min(int(free.get(name, 0.0) / much + 1e-9) for name, much in asked.items() if much)


class Seat:
    """The actor: holds a worker, and turns what ends it into words."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="editsafety-")
        self._worker: Worker | None = None

    def begin(self, brief: Brief, facts: tuple[Any, ...]) -> Parcel:
        """Take in what the run is."""
        with suppress(OSError):  # on a machine without that folder only paths from the root can be meant
            os.chdir(brief.folder)
        try:
            self._worker = Worker(replace(brief, facts=facts), Path(self._place.name))
        except EditSafetyError as error:
            return Parcel({}, (), trouble=str(error))
        return Parcel({}, ())

    def do(self, work: Work) -> Parcel:
        """Do a piece of work."""
        assert self._worker is not None
        try:
            return self._worker.do(work)
        except EditSafetyError as error:
            return Parcel({}, (), trouble=str(error))


class RayCrew:
    """The crew on a cluster that this process has joined."""

    def __init__(self, ray: Any, size: int, slot: Slot) -> None:
        self._ray, self.size, self.slot = ray, size, slot
        asked = {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(Seat).options(**asked, **({"memory": slot.memory} if slot.memory else {}))
        self._hired = 0
        self._seats: dict[str, Any] = {}
        self._waited_for: dict[Any, str] = {}  # what is being done, by whom
        self._briefs: dict[str, Any] = {}  # the plan is put once where all machines can read it

    @classmethod
    @contextmanager
    def joined(cls, address: str, needs: Needs, most: int | None = None) -> Iterator[Self]:
        """Join the cluster at an address, "local" for one on this machine alone, and leave it at the end.

        As many workers as there is room for, `most` at most. Raises ClusterError where Ray is not installed, no cluster
        answers, or no node has room for a worker.
        """
        ray = _imported()
        with _connected(ray, address):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            slot = needs.slot(nodes)
            room = sum(slot.fits(node) for node in nodes)
            if not room:
                told = "; ".join(_told(node) for node in nodes)
                raise ClusterError(f"a worker needs {slot}, and no node has room for one: {told}. Ask for less.")
            crew = cls(ray, min(room, most or room), slot)
            try:
                yield crew
            finally:
                crew.dismiss()

    @property
    def staff(self) -> int:
        """How many there are, those included that have not begun yet."""
        return len(self._seats)

    @property
    def idle(self) -> list[str]:
        """The workers that have begun and have nothing to do."""
        busy = set(self._waited_for.values())
        return [worker for worker in self._seats if worker not in busy]

    def hire(self, brief: Brief) -> None:
        """One more actor; Ray starts it where there is room for it."""
        if brief.digest not in self._briefs:
            self._briefs = {brief.digest: self._ray.put(replace(brief, facts=()))}
        self._hired += 1
        worker = f"worker-{self._hired}"
        self._seats[worker] = self._actor.remote()
        self._wait_for(worker, self._seats[worker].begin.remote(self._briefs[brief.digest], brief.facts))

    def give(self, worker: str, work: Work) -> None:
        """Send it to the actor."""
        self._wait_for(worker, self._seats[worker].do.remote(work))

    def hear(self) -> CrewNews | None:
        """The next result, or death.

        Raises ClusterError for what is neither: a node where this package cannot be imported, say.
        """
        done, _ = self._ray.wait(list(self._waited_for), num_returns=1, timeout=LOOK)
        if not done:
            return None
        worker = self._waited_for.pop(done[0])
        errors = self._ray.exceptions
        try:
            return CrewNews(worker, self._ray.get(done[0]))
        except errors.RayTaskError as error:
            raise ClusterError(f"{worker} cannot work: {_last_line(error)}. What was finished is kept.") from error
        except errors.RayError as error:  # it died, or its node, or what it gave back went with its node
            with suppress(Exception):  # of what is dead already
                self._ray.kill(self._seats[worker])
            del self._seats[worker]
            return CrewNews(worker, None, _how(error))

    def dismiss(self) -> None:
        """Kill all actors; the processes of their editors end with them."""
        for seat in self._seats.values():
            with suppress(Exception):  # the cluster may be gone, and them with it
                self._ray.kill(seat)
        self._seats.clear()
        self._waited_for.clear()

    def _wait_for(self, worker: str, result: Any) -> None:
        self._waited_for[result] = worker


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ClusterError('a sweep needs Ray, which is not installed. Run: pip install "editsafety[ray]"') from error
    return ray


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Joined to a cluster, with this process's own answers to signals."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    quiet = {"log_to_driver": False, "logging_level": "error"}
    # Ray gives its workers the lowest priority; beside anything else on this machine they would hardly run.
    own = {"include_dashboard": False, "_system_config": {"worker_niceness": 0}} if address == "local" else {}
    try:
        try:
            _knock(address)
            ray.init(address=address, **quiet, **own)
        except (OSError, ValueError, RuntimeError) as error:
            start = "Start one (`ray start --head`), or give --address local for this machine alone."
            raise ClusterError(f"no Ray cluster at address {address!r} ({_last_line(error)}). {start}") from error
        for one, answer in before.items():
            with suppress(ValueError):  # not the main thread, whose signals they are
                signal.signal(one, answer)
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), PATIENCE).close()


def _told(node: Mapping[str, float]) -> str:
    memory = _in_gib(node.get("memory", 0.0))
    return f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU, {memory}"


def _how(error: Exception) -> str:
    """How a worker died: the sentence among Ray's lines that says so."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "because" in line), lines[0] if lines else type(error).__name__).rstrip(".")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def _in_gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"
