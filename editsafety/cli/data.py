"""`editsafety data`: what is there, what can be fetched, whether it is whole."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options

app = typer.Typer(help="Data sets: list, fetch, verify.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Every data set: shipped ones, those that `fetch` brings, and the layouts that LOADER:FILE reads."""
    from editsafety import datasets
    from editsafety.datasets import fetch as fetching

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
) -> None:
    """Check every shipped and fetched file, byte by byte and request by request; or the requests of one FILE."""
    from editsafety.errors import UsageError
    from editsafety.research.hardcases import vetting

    if kind and not spec:
        raise UsageError("--as is about one file of requests: name it, editsafety data verify FILE --as hardedit.")
    rules = vetting.kind_of(kind or ("hardedit" if spec.endswith("hardedit") else "requests"))
    findings = [str(finding) for finding in vetting.vet_file(spec, rules)] if spec else _shipped_and_fetched()
    for finding in findings:
        typer.echo(finding)
    typer.echo(f"{len(findings)} findings." if findings else "everything is whole.")
    raise typer.Exit(1 if findings else 0)


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
