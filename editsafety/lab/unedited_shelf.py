"""UneditedShelf: what is measured of the unedited model, kept in the run's store for all that need it later.

The answers to a request's questions are the same whichever editor is tried on it, and so are the scores of an ability.
The first one who needs them measures; other editors, other workers, resumed and merged runs find them here. They are
found by everything that can change them, so another model, other measures and other requests are measured anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from editsafety import __version__
from editsafety.measures import AbilityProbe, Measure
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from editsafety.runs.store import Store

Found = dict[str, Measurement]


class UneditedShelf:
    """The shelf of one model in a store; `conditions` is everything but what is asked."""

    def __init__(self, store: Store, conditions: Mapping[str, Any]) -> None:
        self._store, self._conditions = store, json.dumps(conditions, sort_keys=True)

    def take(self, about: tuple[object, ...], find: Callable[[], Found]) -> Found:
        """What was found about something, else what `find` gives, which is kept. Raises StoreError, and as `find`."""
        key = hashlib.sha256(f"{self._conditions}:{about!r}".encode("utf-8", "backslashreplace")).hexdigest()
        rows = self._store.unedited(key)
        if rows is None:
            found = find()
            self._store.keep_unedited(key, {name: one.as_json() for name, one in found.items()})
            return found
        return {name: Measurement.from_json(row) for name, row in rows.items()}


def conditions_of(
    handle: ModelHandle, chat: str, chosen: Iterable[Measure], probes: Iterable[AbilityProbe], batch_size: int
) -> dict[str, Any]:
    """All that can change what measures find of an unedited model, beside what they are asked."""
    return {
        "editsafety": __version__,
        "model": handle.identity,
        "tokenizer": handle.spelling,
        "device": handle.device.type,
        "dtype": handle.spec.dtype,
        "attention": str(handle.model.config._attn_implementation),
        "plain": handle.engine.plain,
        "batch": batch_size,
        "chat": chat,
        "probes": [repr(probe) for probe in probes],  # some measures ask them
        "measures": {one.name: one.version for one in chosen},
    }
