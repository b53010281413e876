"""Options that several commands share, and what they are made into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="pocket-..., a hub id, a local folder, or random:<config>")]
Models = Annotated[
    list[str], typer.Option("--model", "-m", help="pocket-..., hub id, folder, random:<config>; repeatable")
]
Editor = Annotated[str, typer.Option("--editor", "-e", help="an editor's name, or path/to/file.py:Class")]
Editors = Annotated[
    list[str], typer.Option("--editor", "-e", help="a name, path/to/file.py:Class, rect(memit), or all; repeatable")
]
HparamsFile = Annotated[Path | None, typer.Option("--hparams", help="hyperparameters in place of the shipped ones")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16")]
Revision = Annotated[str | None, typer.Option(help="revision of the model on the hub")]
Offline = Annotated[bool, typer.Option("--offline", help="never ask the network")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="run code from the model's repository (reported)")]
Seed = Annotated[int, typer.Option(help="seed of everything random")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no summary")]


class Interrupted(Exception):
    """The work was stopped by the user; what was finished is kept."""
