"""Garbage collection: what no round of a storage refers to, such as older attempts and leftovers of killed runs.

Kept are the results that the records of rounds name, the current model, and everything these were made from. A nightly
flow run notes its starting model for its own retries; such notes expire like the rest. Questions of held-out prompts
(`heldout/`) always stay: all rounds of a lineage share them, and they are small.

A run writes into a stage's folder with every shard that it computes or finds (`StageRun.claim`), so the newest file
says whether somebody uses it, and publishing checks that no shard has gone.
`keep_hours` must be longer than a shard takes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from ospo_core.artifacts.backends import StoredObject
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.artifacts.tables import read_shard_entry
from ospo_core.config.sections import Section
from ospo_core.errors import StageError
from ospo_core.rounds.lineage import all_manifests, ancestors, lineage
from ospo_core.rounds.records import round_ids, stage_records
from ospo_core.schema import StageName
from ospo_core.stages.base import shard_name
from ospo_core.stages.model_ref import MERGED, current_model, trained

MODELS, REPORTS, NIGHTLY = "models", "reports", "nightly"
_REPORT_DIGITS = 16


class Garbage(Section):
    """One folder or file that nothing refers to.

    Args:
        key: its place in the storage.
        kind: the stage, `models`, `reports` or `nightly`.
        why: reason, in a few words.
        files: number of files in it.
        size: bytes.
        modified: time of the last write to it, seconds since 1970.
    """

    key: str
    kind: str
    why: str
    files: int
    size: int
    modified: float


def find_garbage(storage: Storage, keep_hours: float, forgotten: Collection[str] = ()) -> list[Garbage]:
    """Return what no round refers to and was not written to recently; nothing is deleted.

    Args:
        storage: where to look.
        keep_hours: what was written to in the last `keep_hours` hours stays, since a run may be using it.
        forgotten: ids of rounds to ignore.

    Raises:
        StageError: no round is recorded in this storage, so everything would be garbage.
        DamagedArtifactError: a manifest or record is damaged, so its references are unknown.
    """
    rounds = round_ids(storage)
    if not rounds:
        raise StageError(
            "no round is recorded here, so everything would be removed",
            field=storage.uri(),
            remedy="Run a round first, which is recorded, or delete the folder yourself",
        )
    manifests = all_manifests(storage)
    kept = _kept(storage, manifests, [one for one in rounds if one not in forgotten])
    return list(_unreferenced(storage, manifests, kept, before=time.time() - keep_hours * 3600))


def remove(storage: Storage, garbage: Iterable[Garbage]) -> int:
    """Delete what `find_garbage` found, unless it was written to since; return the number of deleted files."""
    deleted = 0
    for one in garbage:
        if one.kind in (REPORTS, NIGHTLY):
            storage.delete(one.key)
            deleted += 1
        elif _newest(storage.details(one.key)) <= one.modified:
            deleted += storage.delete_folder(one.key)
    return deleted


def _kept(storage: Storage, manifests: list[Manifest], rounds: Iterable[str]) -> dict[str, Manifest]:
    """Return the manifests to keep, by folder: those that records name, the current model's, and their ancestors."""
    by_folder = {one.prefix: one for one in manifests}
    named = [record for identity in rounds for record in stage_records(storage, identity).values()]
    folders = [f"{record.stage}/{record.fingerprint}" for record in named]
    roots = [by_folder[folder] for folder in folders if folder in by_folder]
    pointer = current_model(storage)
    if pointer is not None:
        for generation in lineage(manifests, pointer.digest):
            roots += generation.stages
        roots += [one for one in manifests if one.fingerprint == pointer.evaluation]
    kept = {one.prefix: one for one in roots}
    for one in roots:
        kept.update({above.prefix: above for above in ancestors(manifests, one)})
    return kept


def _unreferenced(
    storage: Storage, manifests: list[Manifest], kept: dict[str, Manifest], before: float
) -> Iterator[Garbage]:
    """Yield folders of stages and models, and reports and notes, last written `before` and referred to by nothing kept.

    What a younger training made stays too.
    """
    published = {one.prefix for one in manifests}
    trainings: set[str] = set()
    for stage in StageName:
        for folder, objects in _by_folder(storage.details(stage.value)).items():
            if folder not in kept and _newest(objects) <= before:
                why = "no round refers to it" if folder in published else "never finished"
                yield _garbage(folder, stage.value, why, objects)
            elif stage is StageName.TRAINING:
                trainings.add(folder)
    models = _models(storage, manifests, trainings)
    for folder, objects in _by_folder(storage.details(MODELS)).items():
        if folder not in models and _newest(objects) <= before:
            yield _garbage(folder, MODELS, "no kept training made it", objects)
    yield from (one for one in _files(storage, kept) if one.modified <= before)


def _files(storage: Storage, kept: dict[str, Manifest]) -> Iterator[Garbage]:
    """Yield the reports of other rounds than those kept, and all notes of nightly runs."""
    prefixes = {one.fingerprint[:_REPORT_DIGITS] for one in kept.values()}
    for one in storage.details(REPORTS):
        if one.key.removesuffix(".html").rpartition("-")[2] not in prefixes:
            yield _garbage(one.key, REPORTS, "its round is gone", [one])
    for one in storage.details(NIGHTLY):
        yield _garbage(one.key, NIGHTLY, "its flow run began long ago", [one])


def _models(storage: Storage, manifests: Iterable[Manifest], trainings: Collection[str]) -> set[str]:
    """Return the folders of the current model and of those that these trainings made, finished or not."""
    pointer = current_model(storage)
    models = {pointer.key} if pointer is not None else set()
    finished = {one.prefix: one for one in manifests}
    for folder in trainings:
        if folder in finished:
            models.add(trained(finished[folder]).merged)
            continue
        with suppress(MissingObjectError):
            models.add(str(read_shard_entry(storage, folder, shard_name(0)).extra.get(MERGED)))
    return models


def _by_folder(objects: Iterable[StoredObject]) -> dict[str, list[StoredObject]]:
    """Group objects by the folder of their result or model; files outside such folders are omitted."""
    folders: dict[str, list[StoredObject]] = {}
    for one in objects:
        parts = one.key.split("/")
        if len(parts) > 2:
            folders.setdefault("/".join(parts[:2]), []).append(one)
    return folders


def _garbage(key: str, kind: str, why: str, objects: list[StoredObject]) -> Garbage:
    size = sum(one.size for one in objects)
    return Garbage(key=key, kind=kind, why=why, files=len(objects), size=size, modified=_newest(objects))


def _newest(objects: Iterable[StoredObject]) -> float:
    """Return when one of the objects was last written."""
    return max((one.modified for one in objects), default=0.0)
