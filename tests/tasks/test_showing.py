"""What the UI shows of a stage says what came in, went out and was dropped."""

from __future__ import annotations

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from ospo_core.artifacts.manifest import Manifest
from ospo_core.schema import StageName
from ospo_core.stages.current import Promotion
from ospo_core.stages.plan import report_key
from ospo_core.stages.progress import Event, emit
from tasks import showing
from tasks.round_tasks import decision_markdown

MANIFEST = Manifest(
    stage=StageName.PERTURBATIONS,
    fingerprint="f" * 64,
    version=1,
    rows=7,
    items_in=10,
    drops={"equal_to_base": 1, "unparsable": 2},
    counts={"calls": 12.0},
    seconds=1.5,
)


def test_markdown_names_items_drops_and_place() -> None:
    text = showing.stage_markdown(MANIFEST)
    assert "10 in, 7 rows out, 3 dropped" in text and "- calls: 12" in text and MANIFEST.prefix in text


def test_drops_are_listed_most_frequent_first() -> None:
    rows = showing.drop_rows(MANIFEST)
    assert rows == [{"reason": "unparsable", "items": 2}, {"reason": "equal_to_base", "items": 1}]


@pytest.mark.parametrize("stage", list(StageName))
def test_artifact_keys_are_what_prefect_allows(stage: StageName) -> None:
    assert set(showing.artifact_key(stage)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_progress_in_the_ui_follows_events(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "_SECONDS_BETWEEN_UPDATES", 0.0)
    seen: list[float] = []
    monkeypatch.setattr(showing, "update_progress_artifact", lambda identity, progress: seen.append(progress))

    @flow
    def show() -> None:
        with showing.progress_shown(StageName.TRAINING):
            emit(Event("advanced", StageName.TRAINING, 1, 4))
            emit(Event("advanced", StageName.IMAGES, 1, 2))

    show()
    assert seen == [25.0, 100.0]
    with get_client(sync_client=True) as client:
        assert client.read_artifacts()


def test_report_is_named_after_the_last_stage() -> None:
    last = MANIFEST.model_copy(update={"stage": StageName.EVALUATION, "fingerprint": "e" * 64})
    manifests = {StageName.EVALUATION: last, StageName.PERTURBATIONS: MANIFEST}
    assert report_key(manifests) == f"reports/evaluation-{'e' * 16}.html"


def test_decision_is_explained_with_figures() -> None:
    group = {"name": "all", "prompts": 4, "parent": 0.25, "child": 0.5, "difference": 0.25}
    group |= {"difference_low": 0.1, "difference_high": 0.4}
    decision = {"promote": True, "reason": "better", "metric": "oracle", "overall": group, "categories": []}
    text = decision_markdown(decision, Promotion(changed=True, reason="promoted"))
    assert "# Promoted" in text and "| all | 4 | 0.250 | 0.500 | +0.250 (+0.100 to +0.400) |" in text
