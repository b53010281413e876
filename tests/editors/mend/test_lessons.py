"""What trained editors practise on."""

from dataclasses import replace

import pytest

from editsafety import datasets
from editsafety.editors.mend.lessons import FileLessons, PocketLessons
from editsafety.errors import DataError
from tests import tiny

REQUEST = tiny.request()
OTHER = tiny.request("case-1", subject="Mirel")


def test_requests_without_rephrasings_or_neighbours_teach_nothing() -> None:
    with pytest.raises(DataError, match="0 of the 2 given have both"):
        FileLessons([replace(REQUEST, rephrasings=()), replace(OTHER, neighbours=())])


def test_what_validates_is_not_trained_on() -> None:
    lessons = FileLessons(datasets.requests("pocket-world/normal"))
    trained, validating = ({lessons.draw(str(i), validation=v).request.id for i in range(400)} for v in (False, True))
    assert (len(trained), len(validating), trained & validating) == (54, 6, set())


def test_a_lesson_depends_on_its_seed_alone() -> None:
    one, two = PocketLessons(), PocketLessons()
    one.draw("first")
    assert one.draw("second") == two.draw("second") != two.draw("third")
