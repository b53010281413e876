"""JUnit properties: strings that XML can hold."""

import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.reporting import junit
from tests import builders
from tests.reporting import hostile

DEFAULT = Policy.read("default")


def test_a_check_says_its_verdict_its_sentence_and_its_figure():
    check = judge_case(DEFAULT, builders.record("rome", "hard", 0, ratio=2.5)).check("perplexity")
    assert junit.properties(check) == [
        ("editsafety.perplexity", "COLLAPSE"),
        ("editsafety.perplexity.sentence", check.sentence),
        ("editsafety.perplexity.figure", "2.5"),
    ]


def test_a_figure_that_is_not_finite_is_said_to_be():
    check = judge_case(DEFAULT, builders.record("rome", "hard", 0, ratio=math.inf)).check("perplexity")
    assert junit.properties(check)[-1] == ("editsafety.perplexity.figure", "not finite")


def test_a_case_says_what_it_is_and_every_check():
    found = dict(junit.properties(judge_case(DEFAULT, builders.record("rome", "hard", 0))))
    assert found["editsafety.case"] == "pocket-neo-rome-hardcf-0000"
    assert (found["editsafety.verdict"], found["editsafety.perplexity_ratio"]) == ("PASS", "1")
    assert found["editsafety.restore"] == "PASS"


def test_a_part_of_the_verdict_says_what_it_was_found_with():
    facts = replace(builders.FACTS, software={"editsafety": "0.1.0", "torch": "2.6"})
    made = builders.report([builders.record("rome", "hard", 0, ratio=9.0)], facts=facts)
    block, run = (dict(junit.of_part(made, part)) for part in made.parts)
    assert block == {
        "editsafety.verdict": "COLLAPSE",
        "editsafety.editor": "rome",
        "editsafety.editor.code": "c" * 64,
        "editsafety.model": "pocket-neo",
        "editsafety.model.fingerprint": "f" * 64,
        "editsafety.model.dtype": "float32",
        "editsafety.policy": "default",
        "editsafety.policy.digest": DEFAULT.digest(),
        "editsafety.version.editsafety": "0.1.0",
        "editsafety.version.torch": "2.6",
    }
    assert (run["editsafety.verdict"], run["editsafety.exit_code"]) == ("PASS", "10")
    assert run["editsafety.model.fingerprint.pocket-neo"] == "f" * 64
    assert "editsafety.editor" not in run


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_hostile_text_in_the_properties_of_a_part_is_legal_xml(text):
    made = hostile.report(text)
    for part in made.parts:
        root = ET.Element("properties")
        for name, value in junit.of_part(made, part):
            ET.SubElement(root, "property", name=name, value=value)
        assert len(ET.fromstring(ET.tostring(root, encoding="utf-8"))) == len(root)


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_hostile_text_makes_no_illegal_xml(text):
    for group in hostile.report(text).groups:
        for case in group.cases:
            root = ET.Element("properties")
            for name, value in junit.properties(case):
                ET.SubElement(root, "property", name=name, value=value)
            again = ET.fromstring(ET.tostring(root, encoding="utf-8"))
            assert len(again) == len(root)
