"""Profiles load, overrides apply, and every mistake is named with its option, its value and a way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ospo_core.config import RoundConfig, load_profile, profile_names, profiles_dir
from ospo_core.errors import ConfigError
from ospo_core.schema import SubCategory

_ROOT = Path(__file__).parents[3]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Return a small profile in a file."""
    return _write(tmp_path, "name: mine\nseed: 7\ntraining:\n  steps: 5\n  learning_rate: 1e-5\n")


def _write(folder: Path, text: str) -> Path:
    path = folder / "round.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _error(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_profile_is_read_over_the_defaults(profile: Path) -> None:
    """Given options are taken (also 1e-5, which YAML calls text), the rest are defaults."""
    config = load_profile(str(profile))
    assert (config.name, config.seed, config.training.steps) == ("mine", 7, 5)
    assert config.training.learning_rate == 1e-5
    assert config.images == RoundConfig(name="x").images


def test_a_profile_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    """round.yaml without `name` is the profile `round`."""
    assert load_profile(str(_write(tmp_path, "seed: 1\n"))).name == "round"


@pytest.mark.parametrize(
    ("override", "option", "value"),
    [
        ("training.steps=50", "training.steps", 50),
        ("training.loss.w_cond = 0", "training.loss.w_cond", 0.0),
        ("prompts.contamination_lists=[a.txt, b.txt]", "prompts.contamination_lists", ("a.txt", "b.txt")),
        ("storage.endpoint_url=http://h:1/a=b", "storage.endpoint_url", "http://h:1/a=b"),
        ("storage.endpoint_url=null", "storage.endpoint_url", None),
        ("perturbations.densify=false", "perturbations.densify", False),
        ("name=other", "name", "other"),
    ],
)
def test_overrides_are_yaml_values(profile: Path, override: str, option: str, value: object) -> None:
    """The text after the first `=` is read as YAML; numbers, lists, null and addresses arrive as meant."""
    found: Any = load_profile(str(profile), [override])
    for key in option.split("."):
        found = getattr(found, key)
    assert found == value


def test_later_overrides_win_and_one_quota_leaves_the_others(profile: Path) -> None:
    """Overriding one entry of a default mapping keeps its other entries; a profile's own mapping is taken whole."""
    config = load_profile(str(profile), ["prompts.quotas.color_1=1", "prompts.quotas.color_1=3"])
    assert config.prompts.quotas == {**RoundConfig(name="x").prompts.quotas, SubCategory.COLOR_1: 3}
    profile.write_text("prompts: {quotas: {shape_1: 2}}\n")
    assert load_profile(str(profile)).prompts.quotas == {SubCategory.SHAPE_1: 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainng: {}\n", ["trainng", "unknown option", "'training'"]),
        ("training: {lerning_rate: 1}\n", ["training.lerning_rate", "'training.learning_rate'"]),
        ("training: {loss: {beta_simp: 1}}\n", ["training.loss.beta_simp", "'training.loss.beta_simpo'"]),
        ("seed: 1\nsteps: 3\n", ["steps", "'training.steps'"]),
        ("engine: {kind: vlm}\n", ["engine.kind", "'vlm'", "Did you mean 'vllm'"]),
        ("engine: {kind: endpoint}\n", ["engine", "engine.base_url"]),
        ("prompts: {quotas: {colour_1: 3}}\n", ["prompts.quotas.colour_1", "'color_1'"]),
        ("prompts: {quotas: {color_1: -1}}\n", ["prompts.quotas.color_1", "-1", "greater than or equal to 0"]),
        ("training: {steps: 0}\n", ["training.steps", "got 0"]),
        ("training: {learning_rate: .nan}\n", ["training.learning_rate", "finite"]),
        ("training: 3\n", ["training", "got 3"]),
        ("storage: {zzzzz: 1}\n", ["storage.zzzzz", "Known here: root, endpoint_url"]),
        ("storage: {endpoint: 'http://me:hush@host'}\n", ["storage.endpoint", "***@host"]),
    ],
)
def test_a_mistake_names_option_value_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    """Each kind of mistake is told in the words of the profile; credentials are not repeated."""
    message = _error(_write(tmp_path, text))
    assert all(word in message for word in words), message
    assert "hush" not in message and "pydantic" not in message


def test_several_mistakes_are_listed_together(tmp_path: Path) -> None:
    """Three mistakes, one error, three lines."""
    message = _error(_write(tmp_path, "seed: x\nimages: {guidance: -1}\nscore: {}\n"))
    assert message.startswith("3 options")
    assert [line.strip().split(":")[0] for line in message.splitlines()[1:]] == ["seed", "images.guidance", "score"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps", ["section.option=value", "'training.steps'"]),
        ("=3", ["section.option=value"]),
        ("training..steps=3", ["section.option=value"]),
        ("training.steps=[1", ["training.steps", "not a YAML value"]),
        ("seed.deep=1", ["seed", "not a section"]),
        ("training.stepz=1", ["training.stepz", "'training.steps'"]),
        ("seed=2026-99-99", ["seed", "valid integer", "'2026-99-99'"]),
        ("seed=" + "9" * 5000, ["seed", "more than 100 digits"]),
        ("seed=!!bool x", ["seed", "not of the kind !!bool"]),
        ("seed=" + "[" * 10_000, ["seed", "nested more than 50 deep"]),
        ("seed=99999999999999999999", ["seed", "less than 9223372036854775808"]),
        ("engine.kv_cache_gib=1e300", ["engine.kv_cache_gib", "less than or equal to 65536"]),
        ("images.guidance=1e300", ["images.guidance", "less than or equal to 1000000"]),
        ("training.adam_betas=[0.9, 1]", ["training.adam_betas", "less than 1"]),
        ("storage.shard_size=1" + "0" * 20, ["storage.shard_size", "less than 2147483648"]),
        ("prompts.quotas.color_1=1" + "0" * 20, ["prompts.quotas.color_1", "less than or equal to 10000000"]),
        ("speeds.tokens=1e300", ["speeds.tokens", "less than or equal to"]),
        ("a." * 50_000 + "b=1", ["section.option=value"]),
    ],
)
def test_a_wrong_override_is_told(profile: Path, override: str, words: list[str]) -> None:
    """An override that cannot be read or placed is an error that quotes it."""
    message = _error(profile, override)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["mapping of sections"]),
        ("- a\n", ["mapping of sections"]),
        ("a: [1\n", ["not valid YAML", "line"]),
        ("seed: 1\nseed: 2\n", ["'seed' is given twice"]),
        ("training:\n  steps: 1\n  steps: 2\n", ["'steps' is given twice"]),
    ],
)
def test_an_unreadable_profile_names_its_file(tmp_path: Path, text: str, words: list[str]) -> None:
    """Empty, not a mapping, not YAML, or a key given twice: the file is named."""
    message = _error(_write(tmp_path, text))
    assert all(word in message for word in [*words, "round.yaml"]), message


def test_very_many_mistakes_are_counted(tmp_path: Path) -> None:
    """Only the first twenty are told."""
    message = _error(_write(tmp_path, "".join(f"option_{number}: 1\n" for number in range(1000))))
    assert message.startswith("1000 options") and message.endswith("and 980 more.")
    assert len(message.splitlines()) == 22


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x.yaml", "x" * 300, "x" * 300 + "/x.yaml", "a\0/x.yaml", "/dev/"]
)
def test_a_profile_that_no_file_can_be_is_one_message(name: str) -> None:
    """Whatever the system says of the name."""
    assert _error(Path(name)).startswith("profile: ")


def test_a_missing_profile_lists_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest name is offered; a missing path is told as well."""
    (tmp_path / "shapes.yaml").write_text("seed: 1\n")
    monkeypatch.setattr("ospo_core.config.profile.profiles_dir", lambda: tmp_path)
    assert "Did you mean 'shapes'" in _error(Path("shape"))
    assert "nowhere/x.yaml" in _error(Path("nowhere/x.yaml"))
    assert load_profile("shapes").name == "shapes"


def test_shipped_profiles_are_found_beside_the_project() -> None:
    """The folder of profiles is the project's own."""
    assert profiles_dir() == _ROOT / "deployments" / "profiles"
    assert profile_names() == sorted(path.stem for path in profiles_dir().glob("*.yaml"))


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads_under_its_own_name(name: str) -> None:
    """No shipped profile has an unknown or unusable option."""
    assert load_profile(name).name == name


def test_a_configuration_is_frozen_and_survives_yaml(profile: Path, tmp_path: Path) -> None:
    """What is dumped as YAML loads as the same configuration, and no option can be changed in place."""
    config = load_profile(str(profile))
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_profile(str(copy)) == config
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]  # the assignment is what is tested


def test_importing_the_configuration_is_light() -> None:
    """Neither torch nor transformers, vLLM, prefect or polars is imported with it."""
    code = "import ospo_core.config, sys; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT)
    assert not {"torch", "transformers", "vllm", "prefect", "polars"} & set(done.stdout.split())
