"""From declared options to the parameters of a command, as typer reads them: options are not listed twice.

    def ppl(*, settings: Annotated[Settings, only("seed", "texts")], loading: Loading, each: bool = False) -> None: ...

is a command with --seed, --texts, --device, --dtype, ... and --each once `flatten` has been over it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from editsafety.runs.settings import Option, options_of, read_options


@dataclass(frozen=True)
class Selection:
    """Which fields of a class of options a command takes; the others keep their defaults."""

    names: frozenset[str]
    taken: bool

    def of(self, declared: Iterable[Option]) -> tuple[Option, ...]:
        """The options that are taken."""
        return tuple(one for one in declared if (one.name in self.names) is self.taken)


def only(*names: str) -> Selection:
    """A command takes these options and no others."""
    return Selection(frozenset(names), taken=True)


def without(*names: str) -> Selection:
    """A command takes all options but these."""
    return Selection(frozenset(names), taken=False)


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it: a parameter that is a class of options becomes these options, one by one.

    Called with their values, it makes the instance and calls the command. All other parameters stay as they are.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, tuple[Option, ...]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        declaration, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(declaration) and isinstance(declaration, type):
            chosen = extras[0].of(options_of(declaration)) if extras else options_of(declaration)
            groups[parameter.name] = declaration, chosen
            parameters += [parameter_of(one) for one in chosen]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))

    @functools.wraps(command)
    def flat(**typed: Any) -> None:
        made: dict[str, Any] = {
            name: read_options(declaration, {one.name: typed.pop(one.name) for one in chosen}, _called)
            for name, (declaration, chosen) in groups.items()
        }
        command(**typed, **made)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def parameter_of(one: Option) -> inspect.Parameter:
    """A declared option as a parameter that typer understands."""
    kind: Any = list[one.type] if one.repeatable else one.type  # type: ignore[name-defined]
    default = one.default
    if one.repeatable and not one.required:
        default = list(default) or None
    if default is None:
        kind = kind | None
    names = [one.command_line, *([f"-{one.short}"] if one.short else [])]
    told = typer.Option(*names, help=one.help, show_default=one.unset or bool(one.standard))
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if one.required else default,
        annotation=Annotated[kind, told],
    )


def _called(one: Option) -> str:
    return one.command_line
