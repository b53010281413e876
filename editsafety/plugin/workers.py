"""Workers: what pytest-xdist starts. Each takes one GPU."""

from __future__ import annotations

import os


def take_one_gpu(worker: str) -> None:
    """Give an xdist worker one GPU, by index into what the caller made visible, before CUDA starts."""
    number = int(worker.removeprefix("gw")) if worker.removeprefix("gw").isdigit() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        devices = [str(i) for i in range(torch.cuda.device_count())]  # asks the driver, and does not start CUDA
    else:
        devices = [device for device in visible.split(",") if device.strip()]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
