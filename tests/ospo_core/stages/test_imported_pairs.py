"""A round trains on imported pairs, alone or with its own; what was exported trains to the same adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError
from ospo_core.rounds import Round
from ospo_core.rounds.plan import manifests_before, plan_round
from ospo_core.schema import StageName
from ospo_core.sharing.cards import Origin, Provenance
from ospo_core.sharing.dataset import export_dataset
from ospo_core.sharing.imported import ImportedPairs
from ospo_core.sharing.importing import import_pairs
from ospo_core.stages.imported_pairs import find_imported, relatives
from ospo_core.stages.model_ref import trained_model
from tests.ospo_core.stages.conftest import SmallRound
from tests.support.manifests import generation
from tests.support.rounds import finished


@dataclass(frozen=True)
class Chain:
    """A small round, its pairs exported and imported again."""

    small: SmallRound
    folder: Path
    imported: ImportedPairs

    def config(self, **training: Any) -> RoundConfig:
        options = {"imported_pairs": self.imported.digest, **training}
        changed = type(self.small.config.training).model_validate(
            {**self.small.config.training.model_dump(), **options}
        )
        return self.small.config.model_copy(update={"training": changed})

    def round(self, **training: Any) -> Round:
        return Round(self.config(**training), self.small.storage, self.small.model, resources=self.small.resources)


@pytest.fixture(scope="module")
def chain(small: SmallRound, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("shared") / "pairs"
    origin = Origin(small.model.digest, small.model.source)
    facts = Provenance(round="r", profile="small", seed=0, model=origin, family="shapes")
    export_dataset(small.storage, small.manifests, folder, [], facts)
    model = small.resources.image_model(small.config.model, Path(small.model.source), small.model.digest)
    known = relatives(small.storage, small.model.digest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Chain(small, folder, import_pairs(folder, small.storage, model, known, small.config.storage))


def adapter(storage: Storage, training: Manifest) -> bytes:
    return storage.read(f"{training.extra['adapter']}/adapter_model.safetensors")


def test_export_import_and_training_give_the_same_adapter(chain: Chain) -> None:
    round, own = chain.round(own_pairs=False), chain.small.manifests[StageName.TRAINING]
    trained = finished(round.bind(StageName.TRAINING, {}))
    assert trained.fingerprint != own.fingerprint and trained.ingredients["upstream"] == {}
    assert adapter(chain.small.storage, trained) == adapter(chain.small.storage, own)
    assert trained_model(trained).digest == trained_model(own).digest
    assert trained.counts["imported_pairs"] == trained.counts["pairs"] == own.counts["pairs"]


def test_imported_pairs_are_mixed_with_the_rounds_own(chain: Chain) -> None:
    round, own = chain.round(), chain.small.manifests[StageName.TRAINING]
    trained = finished(round.bind(StageName.TRAINING, chain.small.manifests))
    assert trained.counts["pairs"] == 2 * own.counts["pairs"]
    assert trained.counts["imported_pairs"] == own.counts["pairs"]
    assert trained.ingredients["fields"]["training"]["imported_pairs"] == chain.imported.digest


def test_without_imported_pairs_nothing_about_them_is_part_of_a_fingerprint(chain: Chain) -> None:
    small = chain.small
    run = Round(small.config, small.storage, small.model).bind(StageName.TRAINING, small.manifests)
    assert {"imported_pairs", "own_pairs"} & set(run.ingredients["fields"]["training"]) == set()


def test_a_round_without_pairs_of_its_own_has_two_stages(chain: Chain) -> None:
    round = chain.round(own_pairs=False)
    assert list(round.stages) == [StageName.TRAINING, StageName.EVALUATION]
    assert [plan.stage for plan in plan_round(round)[0]] == list(round.stages)
    assert round.id != chain.round().id
    for wanted in (StageName.PROMPTS, StageName.PAIRS):
        with pytest.raises(ConfigError, match=f"no stage {wanted}"):
            round.bind(wanted, {})
        with pytest.raises(ConfigError, match=f"no stage {wanted}"):
            manifests_before(round, wanted)


def test_pairs_of_a_stranger_are_refused(chain: Chain) -> None:
    with pytest.raises(ConfigError, match="no relative of"):
        find_imported(chain.config().training, chain.small.storage, "5" * 64)


def test_a_conditional_loss_needs_perturbed_prompts(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    incomplete = chain.imported.model_copy(update={"without_negative": 3})
    monkeypatch.setattr("ospo_core.stages.imported_pairs.load_import", lambda *_: incomplete)
    config = chain.config().training
    with pytest.raises(ConfigError, match=r"w_cond.*3 of 8.*w_cond=0"):
        find_imported(config, chain.small.storage, chain.small.model.digest)
    loss = config.loss.model_copy(update={"w_cond": 0.0})
    changed = config.model_copy(update={"loss": loss})
    assert find_imported(changed, chain.small.storage, chain.small.model.digest) == incomplete


def test_relatives_are_all_models_that_trainings_connect(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for number, parent in ((1, "0"), (2, "1"), (3, "0"), (7, "6")):
        publish_manifest(storage, generation(number, parent * 64)[-1])
    assert {one[0] for one in relatives(storage, "2" * 64)} == {"0", "1", "2", "3"}
    assert relatives(storage, "9" * 64) == {"9" * 64}
