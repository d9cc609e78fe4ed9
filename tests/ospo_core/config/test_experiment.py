"""Experiments: the shipped ones load, arms differ in what their files say, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.config import experiment_names, load_experiment, load_profile
from ospo_core.errors import ConfigError


def folder(tmp_path: Path, arm: str = "title: An arm\ntraining: {steps: 7}\n", **changes: str) -> str:
    (tmp_path / "one.yaml").write_text(arm, encoding="utf-8")
    fields = {
        "title": "Title",
        "profile": "smoke",
        "seeds": "[3, 4]",
        "guidances": "[1.0]",
        "arms": "[one]",
        "common": "{training: {steps: 5, batch_size: 2}}",
        **changes,
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (tmp_path / "experiment.yaml").write_text(text, encoding="utf-8")
    return f"{tmp_path}/"


@pytest.mark.parametrize("name", experiment_names())
def test_shipped_experiments_load(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name and len(experiment.seeds) >= 3
    assert len({arm.title for arm in experiment.arms}) == len(experiment.arms)
    others = {path.stem for path in Path(f"deployments/experiments/{name}").glob("*.yaml")} - {"experiment"}
    assert others == {arm.name for arm in experiment.arms}


def test_the_ablation_compares_equal_numbers_of_pairs_and_steps() -> None:
    trainings = [arm.config.training for arm in load_experiment("ablation").arms]
    assert len({(training.max_pairs, training.steps, training.batch_size) for training in trainings}) == 1
    assert trainings[0].max_pairs is not None


@pytest.mark.parametrize(
    ("experiment", "arm", "profile"), [("amount", "default", "shapes"), ("rate", "slow", "published")]
)
def test_an_arm_that_stands_for_a_profile_has_its_first_round(experiment: str, arm: str, profile: str) -> None:
    (config,) = [one.config for one in load_experiment(experiment).arms if one.name == arm]
    expected = load_profile(profile)
    further = {"further_rate": expected.training.further_rate}
    assert config.prompts == expected.prompts and config.selection == expected.selection
    assert config.training.model_copy(update=further) == expected.training


def test_an_arm_is_put_over_common_options_and_these_over_the_profile(tmp_path: Path) -> None:
    experiment = load_experiment(folder(tmp_path))
    config, smoke = experiment.arms[0].config, load_profile("smoke")
    assert (config.training.steps, config.training.batch_size) == (7, 2)
    assert config.prompts == smoke.prompts
    assert experiment.arm_config(experiment.arms[0], 4) == config.model_copy(update={"seed": 4})


def test_rounds_have_seeds_and_names_of_their_own(tmp_path: Path) -> None:
    experiment = load_experiment(folder(tmp_path, rounds="2"))
    arm = experiment.arms[0]
    assert [experiment.arm_config(arm, 3, number).seed for number in (0, 1)] == [3, 1003]
    assert experiment.titles() == {"one-round-1": "An arm, round 1", "one-round-2": "An arm, round 2"}
    assert load_experiment(folder(tmp_path)).titles() == {"one": "An arm"}


def test_overrides_come_last(tmp_path: Path) -> None:
    experiment = load_experiment(folder(tmp_path), ("training.steps=9",))
    assert experiment.arms[0].config.training.steps == 9


@pytest.mark.parametrize(
    ("arm", "changes", "words"),
    [
        ("title: An arm\ntraining: {stepps: 7}\n", {}, "stepps"),
        ("training: {steps: 7}\n", {}, "title"),
        ("title: An arm\n", {"seeds": "[]"}, "seeds"),
        ("title: An arm\n", {"rounds": "0"}, "rounds"),
        ("title: An arm\n", {"sedes": "[1]"}, "sedes"),
        ("title: An arm\n", {"arms": "[two]"}, "two.yaml"),
        ("title: An arm\n", {"profile": "shaps"}, "shapes"),
        ("title: An arm\nseed: 2026-01-01\n", {}, "seed: .*valid integer"),
        ("title: An arm\nname: !!binary aGk=\n", {}, "one.yaml: not valid YAML"),
        ("title: An arm\ntraining: &a {loss: *a}\n", {}, "holds itself"),
        ("title: An arm\n1: 2\n", {}, "one.yaml: not a mapping"),
        ("title: An arm\ntraining: {1: 2}\n", {}, "training.1: unknown option"),
        ("title: An arm\ntraining: {steps: .nan}\n", {}, "training.steps"),
        ("title: [1]\n", {}, "an arm needs a title"),
        ("title: http://me:hush@host\n", {}, "title: holds a user name"),
        ("title: An arm\n", {"seeds": "[1e99]"}, "seeds"),
        ("title: An arm\n", {"guidances": "[.inf]"}, "guidances"),
        ("title: An arm\n", {"arms": "[one, one]"}, "names an arm twice"),
        ("title: An arm\n", {"arms": "[../one]"}, "arms"),
        ("title: An arm\n", {"common": "{1: 2}"}, "common"),
        ("title: An arm\n", {"common": "{model: {path: 'http://me:hush@host'}}"}, "model.path: holds a user name"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arm: str, changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_experiment(folder(tmp_path, arm, **changes))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["my experiment", "Übung", "-x", "[bold]"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert load_experiment(folder(tmp_path / name)).name == name


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 300, "a\0/b", "/dev/null"])
def test_what_can_be_no_folder_is_one_message(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^experiment: "):
        load_experiment(name)


@pytest.mark.parametrize("section", ["model: {dtype: bfloat16}", "evaluation: {limit: 9}", "storage: {root: other}"])
def test_arms_that_cannot_be_compared_are_refused(tmp_path: Path, section: str) -> None:
    (tmp_path / "two.yaml").write_text(f"title: Another\n{section}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"two\.yaml: {section.split(':')[0]}.*cannot be compared"):
        load_experiment(folder(tmp_path, arms="[one, two]"))


def test_reference_is_one_of_the_arms_of_a_single_round(tmp_path: Path) -> None:
    assert load_experiment(folder(tmp_path, reference="one")).reference == "one"
    for changes in ({"reference": "two"}, {"reference": "one", "rounds": "2"}):
        with pytest.raises(ConfigError, match=r"reference: is not an arm with one round .*Give one of one"):
            load_experiment(folder(tmp_path, **changes))


def test_a_missing_experiment_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="ablation"):
        load_experiment("ablatoin")
