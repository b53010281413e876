"""Settings: the options of a run, each declared once, with all that a front end has to know about it. No torch.

From these declarations come the options of pytest (`--editsafety-limit`, in an ini file `editsafety_limit`), those of
`editsafety run` (`--limit`) and the line that runs a case again. Whoever adds an option adds a field here, and reads it
where it matters; no list of options is kept anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from editsafety.errors import StoreError, UsageError
from editsafety.names import label

Declared = TypeVar("Declared")
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def option(
    default: Any = MISSING,
    *,
    help: str,
    flag: str = "",
    short: str = "",
    at_least: int | None = None,
    unset: str = "",
    replayed: bool = True,
) -> Any:
    """A dataclass field that is an option; its annotation says what is typed: text, a number, a flag, a path.

    Args:
        default: its value when it is not given; without one it has to be given. Of a tuple, `()` is nothing.
        help: one line, for every front end.
        flag: its name on a command line, where that is not the field's own with hyphens for underscores.
        short: one letter, where the command line has one: "m".
        at_least: the smallest number that makes sense.
        unset: what happens without it, in words, where the default itself does not say that: "all".
        replayed: whether it belongs to the command that runs one case again.
    """
    about = {"help": help, "flag": flag, "short": short, "at_least": at_least, "unset": unset, "replayed": replayed}
    return field(metadata=about) if default is MISSING else field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Option:
    """A declared option: a field, what kind of values it takes, and what was said about it."""

    name: str  # of the field
    type: type  # of one value: str, int, float, bool (a flag) or Path
    repeatable: bool  # its value is a tuple, and it may be given several times
    default: Any  # MISSING where it has to be given
    help: str
    flag: str
    short: str
    at_least: int | None
    unset: str
    replayed: bool

    @property
    def required(self) -> bool:
        """Whether there is no run without it."""
        return self.default is MISSING

    @property
    def command_line(self) -> str:
        """Its name for `editsafety run`: `--trust-remote-code`."""
        return f"--{self.flag}"

    @property
    def pytest(self) -> str:
        """Its name for pytest: `--editsafety-trust-remote-code`."""
        return f"--editsafety-{self.flag}"

    @property
    def standard(self) -> str:
        """What holds when it is not given, in words: "50", "1, 10, 50", "all"; "" for nothing worth saying."""
        if self.unset or self.required or self.type is bool:
            return self.unset
        values = self.default if self.repeatable else (self.default,)
        return ", ".join(str(value) for value in values if value not in (None, ""))

    def parse(self, given: Any, called: str) -> Any:
        """What was typed (text or a value, a list of either for a repeatable option) as the value of the field.

        `called` is the name of the option where it was typed. Raises UsageError for a number that makes no sense.
        """
        if self.repeatable:
            each = given if isinstance(given, list | tuple) else str(given).splitlines()
            value: Any = tuple(self._parse(one, called) for one in each)
        else:
            value = self._parse(given, called)
        self.refuse_senseless(value, called)
        return value

    def refuse_senseless(self, value: Any, called: str) -> None:
        """Raise UsageError where a number of the value is none, or too small."""
        for number in value if self.repeatable else (value,):
            if self.type not in (int, float) or number is None:
                continue
            if not isinstance(number, self.type | int) or isinstance(number, bool):
                raise UsageError(f"{called} is {number!r}; expected {self._kind}.")
            if self.at_least is not None and not number >= self.at_least:  # NaN is refused too
                raise UsageError(f"{called} is {number:g}; expected at least {self.at_least}.")

    def _parse(self, given: Any, called: str) -> Any:
        if self.type is bool and isinstance(given, str):
            given = WORDS.get(given.strip().lower(), given)
        wrong = isinstance(given, list | tuple | dict) or isinstance(given, bool) is not (self.type is bool)
        if wrong or (self.type is int and isinstance(given, float)):
            raise UsageError(f"{called} is {given!r}; expected {self._kind}.")
        try:
            return self.type(given)
        except ValueError:
            raise UsageError(f"{called} is {given!r}; expected {self._kind}.") from None

    @property
    def _kind(self) -> str:
        return {int: "a whole number", float: "a number", bool: "true or false"}.get(self.type, "text")


def options_of(declaration: type) -> tuple[Option, ...]:
    """The options that a dataclass declares, in its order."""
    hints = get_type_hints(declaration)
    return tuple(_option(one.name, hints[one.name], one.default, one.metadata) for one in fields(declaration))


def redeclared(declaration: type, name: str) -> Any:
    """The option of that name as a field of another dataclass: the same words and the same default."""
    one = next(one for one in fields(declaration) if one.name == name)
    return field(default=one.default, metadata=one.metadata)


def read_options(declaration: type[Declared], given: Mapping[str, Any], called: Callable[[Option], str]) -> Declared:
    """An instance from what was typed, by field; None and an empty list are what was not given.

    `called` names an option as it was typed. Raises UsageError for a number that makes no sense.
    """
    values: dict[str, Any] = {}
    for one in options_of(declaration):
        typed = given.get(one.name)
        if typed is not None and typed != []:
            values[one.name] = one.parse(typed, called(one))
        elif one.required:
            values[one.name] = ()  # whoever needs one says so, in its own words
    return declaration(**values)


def changed_options(given: Any) -> Iterator[tuple[Option, Any]]:
    """Every option whose value is not its default, once for each value of a repeatable one."""
    for one in options_of(type(given)):
        value = getattr(given, one.name)
        if value != one.default:
            yield from ((one, each) for each in (value if one.repeatable else (value,)))


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run, as given. Empty data specifications mean "what is shipped for that model"."""

    models: tuple[str, ...] = option(
        help="pocket-..., a hub id, a local folder or random:<config>; repeatable",
        flag="model", short="m", replayed=False,
    )  # fmt: skip
    editors: tuple[str, ...] = option(
        help="a name, path/to/file.py:Class, rect(memit), 'command: ...', or all; repeatable",
        flag="editor", short="e", replayed=False,
    )  # fmt: skip
    hard: str = option(
        "",
        help="requests that may collapse a model: a data set, LOADER:FILE or FILE.jsonl",
        unset="those of the model",
    )
    normal: str = option("", help="ordinary requests, same formats as --hard", unset="those of the model")
    texts: int = option(50, help="maximum number of texts for perplexity", at_least=1)
    texts_from: str = option(
        "", help="texts for perplexity: a data set, LOADER:FILE, or a file", unset="those of the model"
    )
    adaptive: bool = option(
        False, help="single edits: read only as many texts as it takes to tell on which side of every limit they are"
    )
    limit: int | None = option(
        None, help="maximum number of requests of each stream", at_least=1, unset="all", replayed=False
    )
    known: bool = option(
        False, help="only requests whose true answer the unedited model gives",
        unset="on for the requests that ship for real models", replayed=False,
    )  # fmt: skip
    all_facts: bool = option(
        False, help="also requests whose true answer the unedited model does not give", replayed=False
    )
    skip_bad_rows: bool = option(False, help="leave rows of requests out that cannot be used, and say which")
    hparams: tuple[str, ...] = option(
        (), help="hyperparameters in place of the shipped ones: FILE, or editor=FILE; repeatable"
    )
    easyedit: str = option(
        "", help="a checkout of EasyEdit, for editors like easyedit:ROME", unset="none", replayed=False
    )
    policy: str = option("default", help="the limits of the verdict: a policy's name, or a .yaml file")
    collapse_above: float | None = option(
        None, help="a model has collapsed past this multiple of its perplexity", at_least=1, unset="the policy's limit"
    )
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")
    dtype: str = option("auto", help="float32, bfloat16 or float16; auto: float32, or bfloat16 where that does not fit")
    device_map: str | None = option(
        None,
        help="spread a model over several devices: auto, balanced, balanced_low_0, sequential, or {module: device} "
        "as JSON or in a file",
        unset="one device",
    )
    revision: str | None = option(None, help="revision of the model on the hub")
    offline: bool = option(False, help="never ask the network")
    trust_remote_code: bool = option(False, help="run code from the model's repository (the report says so)")
    chat: bool = option(False, help="edit and ask through the chat template of the model's tokenizer")
    seed: int = option(0, help="seed of everything random")
    batch_size: int = option(64, help="texts per forward pass", at_least=1)
    plain: bool = option(False, help="compute everything anew and one by one, without any shortcut (slower)")
    controls: int = option(3, help="how many hard cases the control editors get", at_least=0, replayed=False)
    require_controls: bool = option(False, help="a verdict that no control stands behind is an ERROR", replayed=False)
    prepare: bool = option(False, help="run the slow part of an editor first where it is missing", replayed=False)
    edits: int | None = option(None, help="sequences and batches: maximum number of requests", at_least=1, unset="all")
    every: int = option(10, help="sequences: measure after so many requests", at_least=1)
    size: tuple[int, ...] = option((1, 10, 50), help="batches: requests of one edit; repeatable", at_least=1)
    singles: int = option(5, help="abilities: single edits of each stream that are measured", at_least=1)
    probe: tuple[str, ...] = option(
        (),
        help="an ability: english/abilities/nli, english for its eight, READER:FILE, or none; repeatable",
        unset="those of the model",
    )
    items: int = option(100, help="maximum number of items of each ability", at_least=1)
    keep_going: bool = option(False, help="sequences and batches: do not stop after a collapse")
    timeout: float | None = option(
        None,
        help="seconds after which a case (of a course: a step) is stopped as an ERROR; 0: never",
        at_least=0,
        unset="20 times the editor's slowest case, 60 at least",
    )

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            one.refuse_senseless(getattr(self, one.name), one.name)

    @classmethod
    def stored(cls, values: Mapping[str, Any], where: str) -> Self:
        """Settings as `plan.json` holds them. Raises StoreError where they are those of another version."""
        if not isinstance(values, Mapping):
            raise StoreError(f"{where}: its settings are {values!r:.60}, expected an object. Run it again.")
        unknown = values.keys() - {one.name for one in options_of(cls)}
        if unknown:
            raise StoreError(
                f"{where}: has settings that this version does not know ({', '.join(sorted(unknown))}). "
                "Read it with the version that wrote it, or run it again."
            )
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        try:
            TypeAdapter(cls).validate_python(given)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StoreError(f"{where}: {field} is {first['input']!r:.60}: {first['msg'].lower()}.") from error
        return cls(**given)

    def hparams_of(self, editor: str) -> Path | None:
        """The user's hyperparameter file of an editor: `editor=FILE`, or `FILE` for all that were asked for.

        A `FILE` for all is not for the control editors, which come along unasked.
        """
        for given in self.hparams:
            name, separator, path = given.partition("=")
            if separator and name in (editor, label(editor)):
                return Path(path)
            if not separator and editor in self.editors:
                return Path(given)
        return None

    def replay_words(self) -> list[str]:
        """The options that are not the defaults, as pytest takes them; without model, editor and how many cases."""
        words: list[str] = []
        for one, value in changed_options(self):
            if one.replayed:
                words += [one.pytest] if value is True else [one.pytest, str(value)]
        return words


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run goes, and what is shown of it: options that cannot change a result."""

    out: Path | None = option(  # noqa: RUF009 (as everywhere here, the call makes a field)
        None, help="folder of this run", short="o", unset="reports/<time>-<model>"
    )
    quiet: bool = option(False, help="no progress and no summary", short="q")
    baseline: Path | None = option(  # noqa: RUF009
        None, help="hold the run against what was accepted: a file of `editsafety baseline accept`", unset="none"
    )
    allow: tuple[str, ...] = option(
        (), help="a condition that may differ from the baseline's, as its refusal names it; repeatable", unset="none"
    )
    fail_over: tuple[str, ...] = option(
        (), help="a cost that may not be so much worse than in the baseline: latency:20%; repeatable", unset="none"
    )
    comment: Path | None = option(  # noqa: RUF009
        None, help="also write the report as one comment for a pull request, of at most 65,536 characters", unset="none"
    )
    shard: str | None = option(
        None,
        help="only this part of the cases: 2/3 is the second of three; `editsafety merge` joins them",
        unset="all",
    )
    in_process: bool = option(
        False, help="run editors in pytest's own process, for debuggers: a crash or hang then takes the run with it"
    )


def _option(name: str, hint: Any, default: Any, about: Mapping[str, Any]) -> Option:
    """From an annotation: `tuple[int, ...]` is a repeatable number, `int | None` one that may be left out."""
    repeatable = get_origin(hint) is tuple
    kinds = [kind for kind in get_args(hint) if kind not in (type(None), ...)] or [hint]
    return Option(name, kinds[0], repeatable, default, **{**about, "flag": about["flag"] or name.replace("_", "-")})
