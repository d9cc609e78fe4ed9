"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ospo_core.schema import StageName

Profile = Annotated[
    str, typer.Option("--profile", "-p", help="Name of a shipped profile, or path of a YAML file.", show_default=True)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="SECTION.OPTION=VALUE", help="Change an option of the profile; may be repeated."
    ),
]
Refresh = Annotated[
    list[StageName] | None,
    typer.Option("--refresh", help="Compute a stage anew although it is cached; may be repeated."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's logs.")]
Rounds = Annotated[int, typer.Option("--rounds", "-n", min=1, help="Rounds; each starts from the one before.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
ModelFolder = Annotated[Path | None, typer.Option("--model", "-m", help="Model folder; by default the embedded model.")]
