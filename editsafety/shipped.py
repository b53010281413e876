"""Where the files that come with editsafety are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from editsafety.errors import UsageError

ROOMS = ("suites", "hparams", "data")


def shipped(room: str) -> Path:
    """The folder `room` ("suites", "hparams" or "data"). Raises UsageError when this installation lacks it."""
    package = Path(__file__).resolve().parent
    places = (package / "_shipped" / room, package / room, package.parent / room)
    for place in places:
        if room in ROOMS and place.is_dir():
            return place
    raise UsageError(
        f"this installation of editsafety has no folder {room!r}; looked in {', '.join(map(str, places))}."
    )
