"""Workers: what pytest-xdist starts: how many of them for `-n auto`, and which GPU each takes."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editsafety.lab.worker_count import WorkerCount
    from editsafety.runs.settings import Settings


def take_one_gpu(worker: str) -> None:
    """Give an xdist worker one GPU, by index into what the caller made visible, before CUDA starts."""
    number = int(worker.removeprefix("gw")) if worker.removeprefix("gw").isdigit() else 0
    devices = visible_gpus()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def visible_gpus() -> list[str]:
    """The GPUs that the caller made visible, as CUDA_VISIBLE_DEVICES names them; all that there are without a word."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device.strip() for device in visible.split(",") if device.strip()]
        hidden = next((place for place, device in enumerate(devices) if device.startswith("-")), None)
        return devices[:hidden]  # CUDA sees nothing from the first -1 on
    if "torch" not in sys.modules and _is_torch_for_cpus():
        return []  # told without importing torch, which takes a worker seconds that it has no use for
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]  # asks the driver, and does not start CUDA


def _is_torch_for_cpus() -> bool:
    """Whether the installed torch was built without CUDA and ROCm, by its own `version.py`; False where in doubt."""
    found = util.find_spec("torch")
    where = None if found is None or found.origin is None else Path(found.origin).with_name("version.py")
    spec = None if where is None or not where.is_file() else util.spec_from_file_location("torch_version", where)
    if spec is None or spec.loader is None:
        return False
    version = util.module_from_spec(spec)
    spec.loader.exec_module(version)
    return all(vars(version).get(name, "unknown") is None for name in ("cuda", "hip"))


def pick_auto(settings: Settings) -> WorkerCount:
    """How many workers `-n auto` stands for, and why. Imports torch. Raises UsageError for what cannot be run."""
    from editsafety.lab.worker_count import pick_workers
    from editsafety.model.loading import ModelSpec

    names = dict.fromkeys(settings.models)
    return pick_workers([ModelSpec.asked(name, settings) for name in names], len(visible_gpus()))
