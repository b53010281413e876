"""Settings: one declaration of an option is enough for every front end, and senseless numbers are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from editsafety.errors import StoreError, UsageError
from editsafety.judging.policy import COLLAPSE, Policy
from editsafety.runs.settings import (
    Option,
    Output,
    Settings,
    changed_options,
    options_of,
    read_options,
    redeclared,
)
from tests.declared import Brighter

PLAIN = Settings(("m",), ("rome",))
OPTIONS = {one.name: one for one in (*options_of(Settings), *options_of(Output))}


def called(one: Option) -> str:
    return one.pytest


def test_the_annotation_of_a_field_says_what_is_typed() -> None:
    kinds = {name: (one.type, one.repeatable) for name, one in OPTIONS.items()}
    assert kinds["hard"] == (str, False)
    assert kinds["limit"] == kinds["every"] == (int, False)
    assert kinds["size"] == (int, True)
    assert kinds["probe"] == (str, True)
    assert kinds["offline"] == (bool, False)
    assert kinds["out"] == (Path, False)
    assert {name for name, one in OPTIONS.items() if one.required} == {"models", "editors"}


def test_a_flag_is_named_after_its_field_unless_it_says_otherwise() -> None:
    assert OPTIONS["trust_remote_code"].command_line == "--trust-remote-code"
    assert OPTIONS["trust_remote_code"].pytest == "--editsafety-trust-remote-code"
    assert OPTIONS["models"].command_line == "--model"


@pytest.mark.parametrize("one", OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_explained_in_one_line_without_its_default(one: Option) -> None:
    assert one.help
    assert "\n" not in one.help
    assert "default" not in one.help
    assert one.repeatable is ("repeatable" in one.help)


def test_what_holds_without_an_option_is_said_in_words() -> None:
    said = {name: one.standard for name, one in OPTIONS.items()}
    assert (said["texts"], said["limit"], said["size"]) == ("50", "all", "1, 10, 50")
    assert (said["models"], said["offline"], said["revision"]) == ("", "", "")


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if one.at_least is not None])
def test_every_lower_bound_is_kept_by_settings_and_by_what_was_typed(name: str) -> None:
    one = OPTIONS[name]
    assert one.at_least is not None
    low, bound = one.at_least - 1, one.at_least
    with pytest.raises(UsageError, match=rf"^{name} is {low}; expected at least {bound}\.$"):
        Settings(("m",), ("rome",), **{name: (low,) if one.repeatable else low})
    with pytest.raises(UsageError, match=rf"^{one.pytest} is {low}; expected at least {bound}\.$"):
        read_options(Settings, {name: [str(low)] if one.repeatable else str(low)}, called)
    fits = read_options(Settings, {name: [str(bound)] if one.repeatable else str(bound)}, called)
    assert getattr(fits, name) == ((bound,) if one.repeatable else bound)


def test_a_number_that_is_none_is_refused_whoever_gives_it() -> None:
    with pytest.raises(UsageError, match=r"^--editsafety-size is 'ten'; expected a whole number\.$"):
        read_options(Settings, {"size": ["1", "ten"]}, called)
    for wrong in ("me_ppl_50", 2.5, True):
        with pytest.raises(UsageError, match=r"^texts is .*; expected a whole number"):
            Settings(("m",), ("rome",), texts=wrong)  # type: ignore[arg-type]


def test_what_was_not_typed_keeps_its_default() -> None:
    typed = {"models": ["m"], "editors": ["rome"], "size": [], "limit": None, "hard": "", "offline": False}
    assert read_options(Settings, typed, called) == PLAIN
    assert read_options(Settings, {}, called) == Settings((), ())


def test_zero_controls_and_a_negative_seed_are_values() -> None:
    typed = read_options(Settings, {"controls": "0", "seed": "-1"}, called)
    assert (typed.controls, typed.seed) == (0, -1)


def test_settings_come_back_from_json_as_they_were() -> None:
    settings = Settings(("m",), ("rome", "ft"), size=(2, 4), probe=("nli",), limit=3, keep_going=True)
    assert Settings.stored(json.loads(json.dumps(asdict(settings))), "plan.json") == settings


def test_settings_of_another_version_are_refused_by_name() -> None:
    values = {**asdict(PLAIN), "text_limit": 50}
    with pytest.raises(StoreError, match=r"a/plan.json: has settings .* does not know \(text_limit\)"):
        Settings.stored(values, "a/plan.json")


def test_a_replay_has_what_differs_from_the_defaults_but_not_how_many_cases() -> None:
    settings = Settings(("m",), ("e",), hard="a b", size=(1, 2), offline=True, limit=3, controls=1, prepare=True)
    assert settings.replay_words() == [
        "--editsafety-hard", "a b", "--editsafety-offline", "--editsafety-size", "1", "--editsafety-size", "2",
    ]  # fmt: skip
    assert PLAIN.replay_words() == []


def test_an_option_more_is_replayed_bounded_and_stored() -> None:
    assert options_of(Brighter)[-1].pytest == "--editsafety-shine"
    brighter = Brighter(("m",), ("e",), shine=4)
    assert brighter.replay_words() == ["--editsafety-shine", "4"]
    assert Brighter.stored(asdict(brighter), "plan.json") == brighter
    with pytest.raises(UsageError, match=r"^shine is 2; expected at least 3"):
        Brighter(("m",), ("e",), shine=2)


def test_an_option_can_be_an_option_of_something_else_with_the_same_words() -> None:
    @dataclass(frozen=True)
    class Other:
        every: int = redeclared(Settings, "every")

    (other,) = options_of(Other)
    assert other == OPTIONS["every"]
    assert fields(Other)[0].default == 10


def test_changed_options_are_given_value_by_value() -> None:
    changed = [(one.name, value) for one, value in changed_options(Output(out=Path("here"), quiet=True))]
    assert changed == [("out", Path("here")), ("quiet", True)]
    assert list(changed_options(Output())) == []


def test_the_ratio_of_a_collapse_is_that_of_the_default_policy() -> None:
    assert Policy.read("default").collapse == COLLAPSE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"its settings are \[\], expected an object"),
        ("pocket-neo", "its settings are 'pocket-neo', expected an object"),
        ({"models": 3, "editors": ["ft"]}, "models is 3: "),
        ({"models": ["a"], "editors": ["ft"], "texts": "many"}, "texts is 'many': "),
        ({"models": ["a"], "editors": ["ft"], "policy": {}}, r"policy is \{\}: "),
        ({"models": [["a"]], "editors": ["ft"]}, r"models.0 is \['a'\]: "),
        ({"editors": ["ft"]}, "models is .*: "),
    ],
)
def test_settings_that_were_damaged_are_refused_by_field(values: Any, message: str) -> None:
    with pytest.raises(StoreError, match=f"^here: {message}"):
        Settings.stored(values, "here")
