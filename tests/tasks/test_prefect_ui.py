"""What the UI shows of a stage and of a round says what came in, went out and was dropped, with pictures."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds import Round
from ospo_core.rounds.plan import report_key
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef, Promotion
from tasks import prefect_ui as ui
from tests.support.prefect_reading import artifacts_of, log_of
from tests.support.rounds import small_round
from tests.support.synthetic_round import pictures, whole_round

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAVERYSECRETINDEED", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see"}
LARGEST = 500_000
"""Bytes of an artifact, half of what its page may hold at most."""


@pytest.fixture(scope="module")
def shown(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[UUID, dict[StageName, Manifest]]:
    """Id of a flow run that has shown a whole round, and the round."""
    root = tmp_path_factory.mktemp("shown")
    storage, config = Storage(str(root / "store")), small_round(root)
    manifests = whole_round(storage, count=60, after=0.9)
    model = ModelRef(digest="0" * 64, source="embedded:shapes")
    one = Round(config, storage, model, recorded_id="0123456789ab")

    @flow
    def show() -> UUID:
        ui.tag_round(one)
        for manifest in manifests.values():
            if manifest.shards:
                ui.show_stage(storage, manifest, seed=1)
            else:
                ui.show_cached(manifest)
        outcome = Promotion(changed=True, reason="promoted")
        ui.show_decision(manifests[StageName.EVALUATION].extra["decision"], outcome)
        ui.show_round(config, manifests, [StageName.PAIRS], storage.uri("reports/one.html"))
        return UUID(str(flow_run.id))

    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        return show(), manifests


@pytest.fixture(scope="module")
def artifacts(shown: tuple[UUID, dict[StageName, Manifest]]) -> dict[str, Artifact]:
    return artifacts_of(shown[0])


def test_every_shown_stage_has_its_page(artifacts: dict[str, Artifact]) -> None:
    stages = {"ospo-scores", "ospo-pairs", "ospo-training", "ospo-evaluation"}
    extras = {"ospo-pairs-drops", "ospo-pairs-examples", "ospo-training-curves", "ospo-decision", "ospo-round"}
    assert set(artifacts) == stages | extras
    assert "# Pairs" in str(artifacts["ospo-pairs"].data)
    assert str(artifacts["ospo-pairs"].description).startswith("pairs: 24 preference pairs of 660; dropped 190 ")


def test_table_accounts_for_all_items(artifacts: dict[str, Artifact]) -> None:
    rows = json.loads(str(artifacts["ospo-pairs-drops"].data))
    assert [row["items"] for row in rows] == [391, 190, 61, 18] and rows[0]["result"] == "kept"


def test_pairs_curves_and_chart_are_pictures(artifacts: dict[str, Artifact]) -> None:
    kinds = {
        key: [kind for kind, data in pictures(str(artifact.data)) if data]
        for key, artifact in artifacts.items()
        if artifact.type == "markdown"
    }
    assert kinds.pop("ospo-pairs-examples") == ["png"] * 12
    assert kinds.pop("ospo-training-curves") == kinds.pop("ospo-round") == ["svg+xml"]
    assert not any(kinds.values())


def test_artifacts_are_small_and_hold_no_credential(artifacts: dict[str, Artifact]) -> None:
    for artifact in artifacts.values():
        assert len(json.dumps(artifact.data)) < LARGEST, artifact.key
        assert not any(secret in f"{artifact.data} {artifact.description}" for secret in SECRETS.values())


def test_outcome_names_verdict_and_report(artifacts: dict[str, Artifact]) -> None:
    page = str(artifacts["ospo-round"].data)
    assert "# small, seed 0: promoted" in page and "/store/reports/one.html`" in page
    assert "Current model: changed, promoted." in str(artifacts["ospo-decision"].data)


def test_log_tells_the_round_line_by_line(shown: tuple[UUID, dict[StageName, Manifest]]) -> None:
    lines = log_of(shown[0], until="report: ")
    told = [line for line in lines if line.split(":")[0] in {*StageName, "promoted", "report"}]
    assert [line.split(":")[0] for line in told] == [stage.value for stage in shown[1]] + ["promoted", "report"]
    assert told[0].endswith("2 min 24 s (cached)") and "dropped 41 duplicate, 7 unparsable" in told[0]


def test_flow_run_is_tagged_and_keeps_its_other_tags(shown: tuple[UUID, dict[StageName, Manifest]]) -> None:
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(shown[0])
    assert set(run.tags) == {"ospo", "small", "seed-0", "round-0123456789ab"}


def test_server_that_refuses_what_is_shown_does_not_end_the_round(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, shown: tuple[UUID, dict[StageName, Manifest]]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("the server went away")

    monkeypatch.setattr(ui, "create_markdown_artifact", refuse)

    @flow
    def show() -> UUID:
        decision = shown[1][StageName.EVALUATION].extra["decision"]
        ui.show_decision(decision, Promotion(changed=False, reason="as before"))
        return UUID(str(flow_run.id))

    assert any("Not shown in the UI (decision)" in line for line in log_of(show(), until="the server went away"))


@pytest.mark.parametrize("stage", list(StageName))
def test_artifact_keys_are_what_prefect_allows(stage: StageName) -> None:
    assert set(ui.artifact_key(stage)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_report_is_named_after_the_last_stage() -> None:
    manifests = {
        stage: Manifest(stage=stage, fingerprint=letter * 64, version=1, rows=7, items_in=10)
        for stage, letter in ((StageName.EVALUATION, "e"), (StageName.PERTURBATIONS, "f"))
    }
    assert report_key(manifests) == f"reports/evaluation-{'e' * 16}.html"


def test_log_has_the_lines_of_stages_and_errors_but_no_completions(prefect_server: str) -> None:
    @task
    def speak() -> None:
        ui.run_logger().info("images: 3 pictures")

    @task
    def fail() -> None:
        raise ValueError("a mistake")

    @flow
    def logged() -> UUID:
        ui.shorten_log()
        speak()
        fail(return_state=True)
        ui.run_logger().info("the end")
        return UUID(str(flow_run.id))

    run = logged(return_state=True).result()
    lines = log_of(run, until="the end")
    assert "images: 3 pictures" in lines and any("ValueError: a mistake" in line for line in lines)
    assert any(line.startswith("Finished in state Failed(") for line in lines)
    assert lines.count("Finished in state Completed()") <= 1, "only the flow's own"


def test_outside_of_a_run_there_is_an_ordinary_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "ospo"):
        ui.run_logger().info("as usual")
    assert caplog.messages == ["as usual"]
