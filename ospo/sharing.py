"""The commands of data in and out: export of a round's data and of checkpoints, import of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ospo.options import DEFAULT_PROFILE, Overrides, Profile
from ospo_core.sharing import Part

if TYPE_CHECKING:
    from ospo_core.artifacts.storage import Storage
    from ospo_core.config import RoundConfig
    from ospo_core.rounds import Round
    from ospo_core.sharing.cards import Provenance

_Out = Annotated[Path, typer.Argument(help="New folder for it.")]
_Push = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="Also upload it to the Hugging Face Hub; private.")
]
_Public = Annotated[bool, typer.Option("--public", help="With --push: a repository created now is public.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("export")(export)
    app.command("export-model")(export_model)
    app.command("import-pairs")(import_pairs)


def export(
    out: _Out,
    parts: Annotated[
        list[Part] | None, typer.Option("--with", help="What to export beside the pairs; repeatable.")
    ] = None,
    round_: Annotated[
        str | None, typer.Option("--round", "-r", help="First digits of a round's id; default: the profile's round.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Licence to state, as the hub names it, e.g. cc-by-4.0.")
    ] = None,
    push: _Push = None,
    public: _Public = False,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Write the pairs of a round as a dataset that `datasets.load_dataset` opens, with pictures and a card."""
    from ospo import output
    from ospo.actions import storage_of
    from ospo_core.config import load_profile
    from ospo_core.report.formats import whole
    from ospo_core.rounds.plan import plan_round
    from ospo_core.sharing import hub
    from ospo_core.sharing.dataset import export_dataset

    if push is not None:
        hub.check_repository(push)
    config = load_profile(profile, overrides or [])
    storage = storage_of(config)
    round = _round(config, storage, round_)
    tables = export_dataset(storage, plan_round(round)[1], out, parts or [], _provenance(round, license_))
    for table in tables:
        splits = ", ".join(f"{split} {whole(rows)}" for split, rows in table.rows.items())
        output.show_text(f"{table.name:<14} {whole(table.total):>8} rows  {table.file_bytes / 1e6:9.1f} MB  {splits}")
    output.show_text(f"Written to {out}")
    if push is not None:
        output.show_text(f"Uploaded to {hub.push(out, push, 'dataset', public)}")


def export_model(
    checkpoint: Annotated[str, typer.Argument(help="`current`, or the first digits of a trained model's digest.")],
    out: _Out,
    push: _Push = None,
    public: _Public = False,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Write a trained model and its adapter as a folder that the usual libraries load, with a model card."""
    from ospo import output
    from ospo.actions import storage_of
    from ospo_core.config import load_profile
    from ospo_core.rounds.lineage import all_manifests, find_model
    from ospo_core.schema import StageName
    from ospo_core.sharing import hub
    from ospo_core.sharing.checkpoint import export_checkpoint
    from ospo_core.stages.model_ref import trained

    if push is not None:
        hub.check_repository(push)
    storage = storage_of(load_profile(profile, overrides or []))
    manifests = all_manifests(storage)
    digest = find_model(storage, manifests, checkpoint)
    trainings = [one for one in manifests if one.stage is StageName.TRAINING and trained(one).model.digest == digest]
    output.show_text(f"Written to {export_checkpoint(storage, manifests, trainings[-1], out)}")
    if push is not None:
        output.show_text(f"Uploaded to {hub.push(out, push, 'model', public)}")


def import_pairs(
    source: Annotated[
        Path, typer.Argument(help="A dataset folder, or a file of JSON lines or Parquet beside its pictures.")
    ],
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Import preference pairs for training: columns `prompt`, `chosen`, `rejected`, optionally `negative_prompt`."""
    from ospo import output
    from ospo.actions import storage_of
    from ospo_core.config import load_profile
    from ospo_core.models.loading import load_model
    from ospo_core.report.formats import reasons, whole
    from ospo_core.sharing.imported import OPTION, REJECTED
    from ospo_core.sharing.importing import import_pairs as run_import
    from ospo_core.sharing.sources import find_sources
    from ospo_core.stages.imported_pairs import relatives
    from ospo_core.stages.model_ref import model_folder, starting_model

    config = load_profile(profile, overrides or [])
    find_sources(source)  # before the model is loaded
    storage = storage_of(config)
    storage.check_writable()
    ref = starting_model(config, storage)
    folder = model_folder(ref, storage, Path(config.storage.scratch).expanduser())
    model = load_model(folder, config.model)
    found = run_import(source, storage, model, relatives(storage, ref.digest), config.storage)
    total = sum(found.rejected.values())
    output.show_text(
        f"Pairs imported: {whole(found.rows)}, {whole(found.rows - found.tokens_kept)} of them encoded to image tokens"
    )
    if total:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons(found.rejected))
        output.show_text(f"Rows rejected: {whole(total)} ({why}), see {storage.uri(f'{found.prefix}/{REJECTED}')}")
    output.show_text(f"Train on them too: --set {OPTION}={found.digest}")
    output.show_text("Train on them alone: the same and --set training.own_pairs=false")


def _round(config: RoundConfig, storage: Storage, wanted: str | None) -> Round:
    """Return the recorded round that `wanted` names, by default the round of the profile."""
    from ospo_core.rounds import Round
    from ospo_core.rounds.records import config_of, find_record
    from ospo_core.stages.model_ref import starting_model

    if wanted is None:
        return Round(config, storage, starting_model(config, storage, download=False))
    record = find_record(storage, wanted)
    return Round(config_of(record), storage, record.model, record.kind, recorded_id=record.id)


def _provenance(round: Round, license_: str | None) -> Provenance:
    from ospo_core.sharing.cards import Origin, Provenance

    return Provenance(
        round=round.id,
        profile=round.config.name,
        seed=round.config.seed,
        model=Origin(round.model.digest, round.model.source),
        family=round.config.model.family,
        license=license_,
    )
