"""A subject is found in its prompt as a reader sees it, and is then what stands there."""

from __future__ import annotations

import pytest

from editsafety import datasets
from editsafety.datasets._seen import trimmed
from editsafety.errors import DataError
from tests.datasets.conftest import Write

FLAT = {"prompt": "Mirel speaks", "subject": "Mirel", "target_new": "Tarnic"}


@pytest.mark.parametrize(
    ("prompt", "given", "holds"),
    [
        ("The trade of Ana\u00a0Lund is", "Ana Lund", "Ana\u00a0Lund"),  # a space that no line is broken at
        ("The trade of Ana  Lund is", "Ana Lund", "Ana  Lund"),
        ("The trade of Ana Lund is", "Ana\tLund\n", "Ana Lund"),
        ("The trade of Andr\u00e9 is", "Andre\u0301", "Andr\u00e9"),  # one letter, or a letter and its accent
        ("The trade of Andre\u0301 is", "ANDR\u00c9", "Andre\u0301"),
        ("The trade of \u0130lay is", "i\u0307lay", "\u0130lay"),  # in small letters it is a letter longer
        ("The trade of Elsa\u200e is", "\ufeffElsa", "Elsa"),  # a mark of direction, one of byte order
        ("The trade of El\u00adsa is", "Elsa", "El\u00adsa"),  # where a line may be broken
    ],
)
@pytest.mark.parametrize("loader", ["easyedit", "counterfact"])
def test_a_subject_is_found_where_a_reader_sees_it(
    loader: str, prompt: str, given: str, holds: str, write: Write
) -> None:
    asked = {"prompt": prompt, "subject": given, "target_new": {"str": "baker"}}
    row = {**asked, "target_new": "baker"} if loader == "easyedit" else {"requested_rewrite": asked}
    (request,) = datasets.requests(f"{loader}:{write(row)}")
    assert (request.subject, request.filled) == (holds, prompt)


@pytest.mark.parametrize("given", ["Stra\u00dfen", "ras", "Andre"])
def test_half_of_what_a_reader_sees_is_no_subject(given: str, write: Write) -> None:
    row = {**FLAT, "prompt": "Andre\u0301 lives in Stra\u00dfe", "subject": given.upper()}
    with pytest.raises(DataError, match="does not occur in 'prompt'"):
        datasets.requests(f"easyedit:{write(row)}")


@pytest.mark.parametrize("edge", ["\u200e", "\ufeff ", " \u200b\n"])
def test_what_does_not_show_is_no_part_of_a_subject(edge: str, write: Write) -> None:
    asked = {"prompt": "{} is a", "subject": f"{edge}Elsa{edge}", "target_new": {"str": "baker"}}
    (request,) = datasets.requests(f"counterfact:{write({'requested_rewrite': asked})}")
    assert (request.subject, request.prompt.strip()) == ("Elsa", "{} is a")


@pytest.mark.parametrize("text", ["", " \u200e", "Elsa", " El\u00adsa K \ufeff", "\u200eEl\u200e sa\u00a0\n", "a"])
def test_only_what_takes_no_room_at_the_edges_is_taken_off(text: str) -> None:
    """Against all of these characters written out, wherever they stand."""
    assert trimmed(text) == text.strip(" \n\u00a0\u200e\ufeff\u00ad")


@pytest.mark.parametrize(("given", "holds"), [("elsa", "Elsa"), ("Elsa ", "Elsa"), (" ELSA", "Elsa")])
def test_a_subject_is_found_whatever_its_capitals_and_taken_as_it_stands(given: str, holds: str, write: Write) -> None:
    (request,) = datasets.requests(f"easyedit:{write({**FLAT, 'prompt': 'The trade of Elsa is', 'subject': given})}")
    assert (request.prompt, request.subject) == ("The trade of {} is", holds)
