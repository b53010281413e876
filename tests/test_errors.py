"""The exceptions: one tree, and messages that say what to do."""

from __future__ import annotations

import pytest

from editsafety import errors
from editsafety.errors import EditSafetyError, NotPreparedError, UndoError, UnknownNameError, UsageError
from editsafety.shipped import ROOMS, shipped


def test_everything_raised_on_purpose_has_one_base() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(classes) > 5
    assert all(issubclass(each, EditSafetyError) for each in classes)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if isinstance(value, type) and value.__module__ == errors.__name__:
            assert name in errors.__doc__


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (["rome", "memit"], "no editor named 'romee'; did you mean 'rome'? Known editors: memit, rome."),
        (["xyz"], "no editor named 'romee'. Known editors: xyz."),
        ([], "no editor named 'romee'. No editors are known."),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_and_the_known_ones(known: list[str], text: str) -> None:
    assert str(UnknownNameError("editor", "romee", known)) == text
    assert str(UnknownNameError("editor", "romee", known, "Try this.")) == text + " Try this."


def test_what_is_not_prepared_comes_with_the_command() -> None:
    assert "Run: editsafety prepare --model gpt2 --editor memit" in str(
        NotPreparedError("memit", "gpt2", "a covariance")
    )


def test_an_undo_error_keeps_its_findings() -> None:
    error = UndoError(name for name in ("a differs", "b differs"))
    assert error.findings == ("a differs", "b differs")
    assert str(error).endswith("a differs; b differs")


@pytest.mark.parametrize("room", ROOMS)
def test_every_shipped_room_is_a_folder(room: str) -> None:
    assert shipped(room).is_dir()


@pytest.mark.parametrize("room", ["editsafety", "..", "", "/etc", "nothing"])
def test_only_the_shipped_rooms_are_given_out(room: str) -> None:
    with pytest.raises(UsageError, match="this installation of editsafety has no folder"):
        shipped(room)
