"""What a worker is to have, and how many of those a node of Ray has room for. Ray itself is in test_on_ray.py."""

from __future__ import annotations

import pytest

from editsafety.cluster.ray_crew import Needs, Slot

GIB = 1 << 30
CPU_NODE = {"CPU": 16.0, "memory": 64.0 * GIB, "node:10.0.0.1": 1.0}
GPU_NODE = {"CPU": 32.0, "GPU": 4.0, "memory": 256.0 * GIB}


@pytest.mark.parametrize(
    ("slot", "node", "expected"),
    [
        (Slot(1), CPU_NODE, 16),
        (Slot(5), CPU_NODE, 3),
        (Slot(1, 0.0, 12 * GIB), CPU_NODE, 5),
        (Slot(1, 1.0), CPU_NODE, 0),
        (Slot(1, 1.0), GPU_NODE, 4),
        (Slot(1, 0.5), GPU_NODE, 8),
        (Slot(1, 0.1), GPU_NODE, 32),
        (Slot(17), CPU_NODE, 0),
        (Slot(1), {"object_store_memory": 1.0}, 0),
    ],
)
def test_a_node_has_room_for_as_many_as_each_of_its_resources_allows(
    slot: Slot, node: dict[str, float], expected: int
) -> None:
    assert slot.fits(node) == expected


def test_a_gpu_each_where_the_cluster_has_any_and_memory_only_where_the_model_is_on_the_cpu() -> None:
    needs = Needs(2, None, lambda: 3 * GIB)
    assert needs.slot([CPU_NODE, GPU_NODE]) == Slot(2, 1.0, 0)
    assert needs.slot([CPU_NODE]) == Slot(2, 0.0, 3 * GIB)
    assert Needs(2, 0.0, lambda: 3 * GIB).slot([GPU_NODE]) == Slot(2, 0.0, 3 * GIB)
    assert Needs(1, 0.5).slot([GPU_NODE]) == Slot(1, 0.5, 0)


def test_a_slot_says_what_it_is() -> None:
    assert str(Slot(1)) == "1 CPU"
    assert str(Slot(2, 0.5, 3 * GIB)) == "2 CPU, 0.5 GPU, 3.0 GiB"
