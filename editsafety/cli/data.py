"""`editsafety data`: what is there, what can be fetched, whether it is whole."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

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
    console = Console(highlight=False)
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
    from editsafety.progress import Progress

    size = fetching.SOURCES[name].size if name in fetching.SOURCES else 0
    with Progress(sys.stderr, "quiet" if quiet else "auto").task(f"fetching {name} (KiB)", size // 1024 + 1) as task:

        def advance(received: int, _total: int) -> None:
            while task.done < received // 1024:
                task.step()

        path = fetching.fetch(name, offline=offline, progress=advance)
    typer.echo(f"{name}: {path}")


@app.command()
def verify() -> None:
    """Check every shipped file against the manifest, row by row, and every fetched one against its sha256."""
    from editsafety.datasets import fetch as fetching
    from editsafety.datasets import manifest
    from editsafety.shipped import shipped

    findings = manifest.verify(shipped("data"))
    for source in fetching.SOURCES.values():
        path = fetching.cache_folder() / source.file_name
        if path.is_file() and fetching.digest(path) != source.sha256:
            findings.append(f"{path}: is not the file that was pinned (sha256 differs). Fetch it again.")
    for finding in findings:
        typer.echo(finding)
    typer.echo(f"{len(findings)} findings." if findings else "everything is whole.")
    raise typer.Exit(1 if findings else 0)
