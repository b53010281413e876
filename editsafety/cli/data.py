"""`editsafety data`: what is there, what can be fetched, whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options

if TYPE_CHECKING:
    from editsafety.research.hardcases import vetting

app = typer.Typer(help="Data sets: list, fetch, verify.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Every data set: shipped ones, those that `fetch` brings, and the layouts that LOADER:FILE reads."""
    from editsafety import datasets
    from editsafety.datasets import fetch as fetching
    from editsafety.datasets._published import known_layouts

    table = Table("name", "where", "about", title="data sets", title_justify="left")
    for name in datasets.names():
        source = fetching.SOURCES.get(name)
        if source is None:
            table.add_row(name, "shipped", "")
        else:
            here = (fetching.cache_folder() / source.file_name).is_file()
            table.add_row(name, "fetched" if here else "to be fetched", f"{source.about} ({source.licence})")
    console = escaping.console()
    console.print(table)
    layouts = Table("layout", "told by its fields", title="published layouts of requests", title_justify="left")
    for one in known_layouts():
        layouts.add_row(one.name, one.fields)
    console.print(layouts)
    console.print(f"layouts, as LOADER:FILE: {', '.join(datasets.loaders())}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="a name from `data list`")],
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring a data set from its pinned address, checked against its sha256."""
    from editsafety.datasets import fetch as fetching

    size = fetching.SOURCES[name].size if name in fetching.SOURCES else 0
    with options.show_progress(quiet=quiet).task(f"fetching {name} (KiB)", size // 1024 + 1) as task:

        def advance(received: int, _total: int) -> None:
            while task.done < received // 1024:
                task.step()

        path = fetching.fetch(name, offline=offline, progress=advance)
    typer.echo(f"{name}: {path}")


@app.command()
def verify(
    spec: Annotated[str, typer.Argument(metavar="[FILE]", help="requests: FILE.jsonl, LOADER:FILE or a name")] = "",
    kind: Annotated[str, typer.Option("--as", help="rules to hold FILE to: requests or hardedit")] = "",
    skip_bad_rows: options.SkipBadRows = False,
) -> None:
    """Check every shipped and fetched file, byte by byte and request by request; or the requests of one FILE.

    Of one FILE it is said as well which fields no request has a place for. Rows that cannot be used are findings, but
    for --skip-bad-rows.
    """
    from editsafety.errors import UsageError
    from editsafety.research.hardcases import vetting

    if kind and not spec:
        raise UsageError("--as is about one file of requests: name it, editsafety data verify FILE --as hardedit.")
    rules = vetting.kind_of(kind or ("hardedit" if spec.endswith("hardedit") else "requests"))
    findings = _of_file(spec, rules, skip_bad_rows=skip_bad_rows) if spec else _shipped_and_fetched()
    for finding in findings:
        typer.echo(finding)
    typer.echo(f"{len(findings)} findings." if findings else "everything is whole.")
    raise typer.Exit(1 if findings else 0)


def _of_file(spec: str, rules: vetting.Kind, *, skip_bad_rows: bool) -> list[str]:
    """What is wrong with the requests of a file; what is set aside or left out is printed, and no finding."""
    from editsafety import datasets
    from editsafety.errors import DataError
    from editsafety.research.hardcases import vetting

    try:
        found = datasets.read_requests(spec, skip_bad_rows=True)
    except DataError:
        return [str(finding) for finding in vetting.vet_file(spec, rules)]
    for line in found.sentences if skip_bad_rows else found.sentences[: 1 if found.aside else 0]:
        typer.echo(line)
    return [*(() if skip_bad_rows else found.left_out), *map(str, vetting.vet(found.requests, rules))]


def _shipped_and_fetched() -> list[str]:
    from editsafety.datasets import fetch as fetching
    from editsafety.datasets import manifest
    from editsafety.research.hardcases import vetting
    from editsafety.shipped import shipped

    findings = manifest.verify(shipped("data"))
    findings += [str(finding) for finding in vetting.vet_folder(shipped("data"))]
    for source in fetching.SOURCES.values():
        path = fetching.cache_folder() / source.file_name
        if path.is_file() and fetching.digest(path) != source.sha256:
            findings.append(f"{path}: is not the file that was pinned (sha256 differs). Fetch it again.")
    return findings
