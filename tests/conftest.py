"""Nothing here reaches the network: a test that tries fails at once instead of waiting for a timeout."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["EDITSAFETY_IN_PROCESS"] = "1"  # a process per run costs seconds; tests of supervision take this away
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: more threads only wait for each other

# The same examples everywhere and no time limit for one of them: a slow machine is no finding.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("steady"), max_examples=1000)
settings.load_profile("steady")


def pytest_collection_finish() -> None:
    """What imports have made stays until the end: no collection has to look through it again and again."""
    gc.collect()
    gc.freeze()
