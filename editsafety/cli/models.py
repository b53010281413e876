"""`editsafety models`: the shipped pocket models, and what they are measured to be."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options

app = typer.Typer(help="Shipped models: list, check.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """The shipped models, and the shapes that `random:` knows."""
    from editsafety.model.loading import RANDOM_CONFIGS, model_folder, pocket_models

    table = Table("name", "what", title="models without a download", title_justify="left")
    for name in pocket_models():
        folder = model_folder(name)
        assert folder is not None
        size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
        table.add_row(name, f"trained, {size / 1e6:.1f} MB; card: {folder.name}/README.md")
    for name, (kind, _) in RANDOM_CONFIGS.items():
        table.add_row(f"random:{name}", f"random weights in the shape of {name} ({kind}); for cost figures only")
    escaping.console().print(table)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="a pocket model")] = "pocket-neo",
    quiet: options.Quiet = False,
) -> None:
    """Measure what a pocket model promises: facts known, normal edits that take, hard edits that collapse."""
    from editsafety.research import pocket_promises

    found = pocket_promises.measure_promises(name, options.show_progress(quiet=quiet))
    table = Table("promise", "expected", "measured", "n", "", title=name, title_justify="left")
    for one in found:
        table.add_row(one.what, one.expected, one.shown, str(one.n), "kept" if one.kept else "BROKEN")
    escaping.console().print(table)
    raise typer.Exit(0 if all(one.kept for one in found) else 1)
