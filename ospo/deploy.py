"""What `ospo deploy` does: check the file, then bring a server up to it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from flows.prefect_server import configure_prefect
from ospo import output
from ospo_core.errors import OspoError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.registry import Registered

FOLDER = Path(__file__).resolve().parents[1]
DEFAULT_FILE = FOLDER / "prefect.yaml"
AUTOMATIONS = FOLDER / "automations.yaml"
HEARTBEAT = "PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30"
"""What a worker's environment must say for the automation that finds silent runs."""

_ANSWER_TIMEOUT_S = 10.0


def deploy(file: Path | None, home: Path | None, check_only: bool) -> None:
    """Check a file of deployments and, unless `check_only`, register what it says.

    Args:
        file: the file; by default the shipped one.
        home: the project's folder on the workers' machines; by default OSPO_HOME, or the folder of this project.
        check_only: stop after the check; no server is needed.

    Raises:
        ConfigError: what is wrong with the file.
        OspoError: there is no server, it does not answer or refuses something, or `home` is the wrong folder.
    """
    configure_prefect(Path(".ospo") / "scratch")
    from deployments.deploy_file import read_deploy_file
    from deployments.deployables import SOURCE, check

    path = file or DEFAULT_FILE
    document = read_deploy_file(path)
    deployables = check(document, path)
    if check_only:
        output.show_text(f"{path}: {len(deployables)} deployments, nothing wrong")
        return
    from deployments import registry

    chosen = (home or Path(os.environ.get("OSPO_HOME") or SOURCE)).expanduser().absolute()
    note = registry.check_home(chosen, deployables)
    with _server() as client:
        done = [*registry.register_pools(client, document.work_pools)]
        done += registry.register_automations(client, AUTOMATIONS)
        done += [registry.register_deployment(client, one, chosen) for one in deployables]
    _show(done, chosen, note)


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """Yield a client of the user's server.

    Raises:
        OspoError: none is named, it does not answer, or it refuses a request.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    if not address:
        raise OspoError(
            "no Prefect server is named",
            field="PREFECT_API_URL",
            remedy="Start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    try:
        httpx.get(f"{address}/health", timeout=_ANSWER_TIMEOUT_S).raise_for_status()
    except httpx.HTTPError as error:
        problem, remedy = f"the Prefect server does not answer: {error}", "Start it, or correct the address"
        raise OspoError(problem, field="PREFECT_API_URL", value=address, remedy=remedy) from error
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as error:
        raise OspoError(
            f"the Prefect server refused {error.request.method} {error.request.url.path}: {error.response.text}",
            field="PREFECT_API_URL",
            value=address,
            remedy="See its log",
        ) from error


def _show(done: Sequence[Registered], home: Path, note: str) -> None:
    """Show what was done, and the commands that come next."""
    table = Table(title="Deployed", title_justify="left")
    for heading in ("Kind", "Name", "Outcome", "Pool", "Notes"):
        table.add_column(heading, overflow="fold")
    for one in done:
        table.add_row(one.kind, one.name, one.outcome, one.pool, "\n".join(one.notes))
    output.console().print(table)
    output.show_text(f"Workers run in {home}" + (f" ({note})" if note else ""))
    output.show_text("Next, on the machines that do the work:")
    for name in [one.name for one in done if one.kind == "work pool"]:
        output.show_text(f"  {HEARTBEAT} prefect worker start --pool {shlex.quote(name)} --type process")
