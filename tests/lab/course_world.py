"""Editors for courses: they break the model on the way, take several requests, or wait where a file says so."""

from __future__ import annotations

from pathlib import Path

from tests.system import world

# Breaks the model at the third edit of a course or at one request; waits where a file beside it says so.
MORE = '''
from editsafety import Traits

class Counts(Nudge):
    """At its third edit on top of others the model breaks."""

    def edit(self, requests, carry=None):
        count = int(carry["count"]) + 1 if carry else 1
        edit = super().edit(requests)
        if count == 3:
            edit.deltas[0].left.fill_(float("nan"))
        return Edit(edit.editor, edit.request_ids, edit.made_for, edit.deltas, carry={"count": torch.tensor(count)})


class Trips(Nudge):
    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        if requests[0].id.endswith("-2"):
            edit.deltas[0].left.fill_(float("nan"))
        return edit


class Several(Nudge):
    """Takes any number of requests at once."""

    traits = Traits(batch=True)

    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        return Edit(edit.editor, tuple(one.id for one in requests), edit.made_for, edit.deltas)


class Waits(Nudge):
    """Goes on carrying a count; at request 5 it waits for as long as a file is there."""

    def edit(self, requests, carry=None):
        import time
        from pathlib import Path
        here = Path(__file__).parent
        with (here / "log").open("a") as log:
            log.write(requests[0].id + "\\n")
        while requests[0].id.endswith("-5") and (here / "wait").exists():
            (here / "waiting").touch()
            time.sleep(0.01)
        edit = super().edit(requests)
        count = torch.tensor(int(carry["count"]) + 1 if carry else 1)
        edit.deltas[0].left.mul_(count)
        return Edit(edit.editor, edit.request_ids, edit.made_for, edit.deltas, carry={"count": count})
'''


def written(place: Path) -> dict[str, str]:
    """A world of eight normal requests, with these editors beside `Nudge`; its paths."""
    found = world.write(place, normal=8)
    nudge = Path(found["nudge"])
    nudge.write_text(nudge.read_text() + MORE)
    return found
