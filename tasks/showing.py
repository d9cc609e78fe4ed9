"""What the Prefect UI shows of a stage: a table of drops, a few lines of figures, examples of pairs, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import iter_rows
from ospo_core.schema import StageName
from ospo_core.stages.progress import Event, listening

EXAMPLES = 5
_SECONDS_BETWEEN_UPDATES = 2.0
_EXAMPLE_COLUMNS = ["sub_category", "prompt", "negative_prompt", "chosen_score", "rejected_score", "rule"]


def show_stage(storage: Storage, manifest: Manifest) -> None:
    """Put a finished stage's figures and drops, and for pairs some examples, into the UI."""
    key = artifact_key(manifest.stage)
    create_markdown_artifact(stage_markdown(manifest), key=key, description=f"Stage {manifest.stage}")
    create_table_artifact(drop_rows(manifest), key=f"{key}-drops", description="Items dropped, by reason")
    if manifest.stage is StageName.PAIRS:
        rows = islice(iter_rows(storage, manifest, _EXAMPLE_COLUMNS), EXAMPLES)
        create_table_artifact(list(rows), key=f"{key}-examples", description="The first pairs")


def artifact_key(stage: StageName) -> str:
    """Return the artifact key of a stage: lower case letters and dashes."""
    return f"ospo-{stage.value.replace('_', '-')}"


def stage_markdown(manifest: Manifest) -> str:
    """Return a stage's figures as Markdown."""
    lines = [
        f"# {manifest.stage}",
        "",
        f"{manifest.items_in} in, {manifest.rows} rows out, {sum(manifest.drops.values())} dropped, "
        f"{manifest.seconds:.1f} s of work in {len(manifest.shards)} shards",
        "",
        f"`{manifest.prefix}`",
        "",
    ]
    lines += [f"- {name}: {count:g}" for name, count in sorted(manifest.counts.items())]
    measured = manifest.extra.get("quality") or {}
    lines += [f"- {name}: {share:.3f}" for name, share in measured.items() if share is not None]
    return "\n".join(lines)


def drop_rows(manifest: Manifest) -> list[dict[str, str | int]]:
    """Return a stage's drops, most frequent first."""
    ordered = sorted(manifest.drops.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": reason, "items": count} for reason, count in ordered]


@contextmanager
def progress_shown(stage: StageName) -> Iterator[None]:
    """Keep a progress bar in the UI in step with the stage's events while the block runs."""
    identity = create_progress_artifact(0.0, key=f"{artifact_key(stage)}-progress", description=f"Stage {stage}")
    if not isinstance(identity, UUID):
        raise TypeError("a progress artifact was awaited in synchronous code")
    with listening(_updater(stage, identity)):
        yield
    update_progress_artifact(identity, 100.0)


def _updater(stage: StageName, identity: UUID) -> Callable[[Event], None]:
    """Return a listener that updates the bar, but not more often than every few seconds."""
    last = time.monotonic()

    def update(event: Event) -> None:
        nonlocal last
        if event.stage is stage and event.total and time.monotonic() - last > _SECONDS_BETWEEN_UPDATES:
            last = time.monotonic()
            update_progress_artifact(identity, 100.0 * event.done / event.total)

    return update
