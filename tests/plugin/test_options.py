"""The options of pytest are those that Settings declare: on the command line and in the ini file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from editsafety.errors import UsageError
from editsafety.plugin.options import option, settings_of
from editsafety.runs.settings import Output, Settings, changed_options, options_of
from tests.declared import Brighter

EVERYTHING = Settings(
    ("m", "n"), ("rome", "memit"), hard="h", normal="n", texts=3, texts_from="t", limit=4, hparams=("rome=r.yaml",),
    policy="p.yaml", device="cpu", dtype="bfloat16", revision="main", offline=True, trust_remote_code=True, seed=-1,
    batch_size=2, controls=0, prepare=True, edits=9, every=8, size=(1, 2), singles=7, probe=("nli", "none"), items=6,
    keep_going=True, collapse_above=3.5, require_controls=True, skip_bad_rows=True, timeout=90.5, plain=True,
    known=True, all_facts=True, chat=True, adaptive=True, easyedit="checkout", device_map="auto",
)  # fmt: skip
# The plugin itself stays out, so that the conftest can declare the options once more.
CONFTEST = """
from editsafety.plugin.options import add_options
from editsafety.runs.settings import Output
from tests.declared import Brighter

def pytest_addoption(parser):
    add_options(parser, (Brighter, Output))
"""


@pytest.fixture
def configure(pytester: pytest.Pytester):
    """configure(*words, ini=...): pytest's configuration with the options of `Brighter`."""

    def made(*words: str, ini: str = "") -> pytest.Config:
        pytester.makeini(f"[pytest]\n{ini}\n")
        pytester.makeconftest(CONFTEST)
        return pytester.parseconfig("-p", "no:editsafety", *words)

    return made


def read(config: pytest.Config, declaration: type[Settings] = Settings) -> Settings:
    return settings_of(lambda name: option(config, name), declaration)


def test_everything_on_the_command_line_comes_to_the_settings_it_was_made_of(configure) -> None:
    changed = list(changed_options(EVERYTHING))
    assert {one.name for one, _ in changed} == {one.name for one in options_of(Settings)}, "an option is not tried"
    words = [one.pytest if value is True else f"{one.pytest}={value}" for one, value in changed]
    assert read(configure(*words)) == EVERYTHING


def test_everything_in_the_ini_file_comes_to_the_same(configure) -> None:
    lines: dict[str, str] = {}
    for one, value in changed_options(EVERYTHING):
        name = one.pytest.removeprefix("--").replace("-", "_")
        lines[name] = f"{lines[name]}\n    {value}" if name in lines else str(value)
    ini = "\n".join(f"{name} = {text}" for name, text in lines.items())
    assert read(configure(ini=ini)) == EVERYTHING


@pytest.fixture
def toml(pytester: pytest.Pytester):
    """toml(name, lines): pytest's configuration from a native TOML file."""
    if int(pytest.__version__.split(".")[0]) < 9:
        pytest.skip("pytest reads its own TOML tables since 9.0")

    def made(file: str, *lines: str, words: Sequence[str] = ()) -> pytest.Config:
        head = "[tool.pytest]" if file == "pyproject.toml" else "[pytest]"
        (pytester.path / file).write_text("\n".join([head, *lines]))
        pytester.makeconftest(CONFTEST)
        return pytester.parseconfig("-p", "no:editsafety", *words)

    return made


@pytest.mark.parametrize("file", ["pytest.toml", "pyproject.toml"])
@pytest.mark.parametrize("quoted", [True, False])
def test_typed_and_quoted_values_in_a_toml_file_come_to_the_same(toml, file: str, quoted: bool) -> None:
    def written(value: object) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return json.dumps(text) if quoted or isinstance(value, str) else text

    lines: dict[str, list[str]] = {}
    for one, value in changed_options(EVERYTHING):
        lines.setdefault(one.pytest.removeprefix("--").replace("-", "_"), []).append(written(value))
    repeatable = {one.pytest.removeprefix("--").replace("-", "_") for one in options_of(Settings) if one.repeatable}
    values = {name: f"[{', '.join(each)}]" if name in repeatable else each[0] for name, each in lines.items()}
    texts = [f"{name} = {value}" for name, value in values.items()]
    assert read(toml(file, *texts)) == EVERYTHING


def test_one_value_of_a_list_needs_no_brackets_in_a_toml_file(toml) -> None:
    found = read(toml("pytest.toml", 'editsafety_model = "m"', "editsafety_size = 7", 'editsafety_probe = "none"'))
    assert (found.models, found.size, found.probe) == (("m",), (7,), ("none",))


def test_nought_and_false_in_a_toml_file_are_values(toml) -> None:
    assert read(toml("pytest.toml", "editsafety_controls = 0")).controls == 0
    for no in ("false", '"false"', '"no"'):
        config = toml("pytest.toml", f"editsafety_offline = {no}", f"editsafety_quiet = {no}")
        assert not read(config).offline
        assert not option(config, "quiet")
    assert option(toml("pytest.toml", 'editsafety_quiet = "true"'), "quiet") is True


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("editsafety_limit = 1.5", "--editsafety-limit is 1.5; expected a whole number"),
        ("editsafety_limit = true", "--editsafety-limit is True; expected a whole number"),
        ("editsafety_limit = [1]", r"--editsafety-limit is \[1\]; expected a whole number"),
        ('editsafety_limit = "few"', "--editsafety-limit is 'few'; expected a whole number"),
        ("editsafety_limit = 0", "--editsafety-limit is 0; expected at least 1"),
        ('editsafety_size = [1, "two"]', "--editsafety-size is 'two'; expected a whole number"),
        ('editsafety_offline = "perhaps"', "--editsafety-offline is 'perhaps'; expected true or false"),
        ("editsafety_offline = 3", "--editsafety-offline is 3; expected true or false"),
        ("editsafety_policy = true", "--editsafety-policy is True; expected text"),
        ("editsafety_collapse_above = 'x'", "--editsafety-collapse-above is 'x'; expected a number"),
    ],
)
def test_a_typed_value_that_makes_no_sense_is_refused_by_its_name(toml, line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(toml("pytest.toml", line))


def test_the_command_line_comes_before_a_toml_file(toml) -> None:
    assert read(toml("pytest.toml", "editsafety_limit = 1", words=["--editsafety-limit=2"])).limit == 2
    assert read(toml("pytest.toml", "editsafety_limit = 1", words=["-o", "editsafety_limit=3"])).limit == 3


def test_the_command_line_comes_before_the_ini_file(configure) -> None:
    assert read(configure("--editsafety-limit=2", ini="editsafety_limit = 1")).limit == 2
    assert read(configure(ini="editsafety_limit = 1")).limit == 1
    assert read(configure()).limit is None


@pytest.mark.parametrize(
    ("words", "ini", "said"),
    [
        (["--editsafety-limit=0"], "", "--editsafety-limit is 0; expected at least 1"),
        ([], "editsafety_limit = 0", "--editsafety-limit is 0; expected at least 1"),
        ([], "editsafety_every = often", "--editsafety-every is 'often'; expected a whole number"),
        (["--editsafety-size=ten"], "", "--editsafety-size is 'ten'; expected a whole number"),
    ],
)
def test_a_senseless_number_is_refused_by_its_name(configure, words: list[str], ini: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(configure(*words, ini=ini))


def test_an_option_that_is_declared_is_an_option_of_pytest(configure) -> None:
    assert read(configure("--editsafety-shine=4"), Brighter) == Brighter((), (), shine=4)
    assert read(configure(ini="editsafety_shine = 5"), Brighter) == Brighter((), (), shine=5)
    with pytest.raises(UsageError, match="--editsafety-shine is 2; expected at least 3"):
        read(configure("--editsafety-shine=2"), Brighter)


def test_help_says_what_every_option_is_and_its_default(pytester: pytest.Pytester) -> None:
    shown = " ".join(pytester.runpytest("--help").stdout.str().split())
    for one in (*options_of(Settings), *options_of(Output)):
        assert one.pytest in shown
        assert one.help.split("; repeatable")[0].replace("-", "") in shown.replace("-", "")
    assert "(default 50)" in shown
    assert "(default 1, 10, 50)" in shown


def test_where_a_run_goes_is_an_option_too(configure) -> None:
    config = configure("--editsafety-out=here", "--editsafety-quiet")
    assert (Path(option(config, "out")), option(config, "quiet")) == (Path("here"), True)
