"""The control that changes nothing."""

from editsafety.edits.session import EditSession
from tests import tiny
from tests.editors.conftest import Make


def test_it_changes_nothing(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("noop", handle).edit([tiny.request()])
    assert (edit.parameters, edit.request_ids) == ((), ("case-0",))
    with EditSession(handle) as session:
        session.apply(edit)
        assert session.changed() == ()
