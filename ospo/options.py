"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ospo_core.schema import StageName

DEFAULT_PROFILE = "shapes"

Profile = Annotated[str, typer.Option("--profile", "-p", help="Name of a shipped profile, or path of a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.OPTION=VALUE", help="Change an option of the profile; repeatable."),
]
Refresh = Annotated[
    list[StageName] | None, typer.Option("--refresh", help="Recompute a stage even if it is cached; repeatable.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's logs.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Where to write the result.")]
ModelFolder = Annotated[Path | None, typer.Option("--model", "-m", help="Model folder; default: the embedded model.")]
