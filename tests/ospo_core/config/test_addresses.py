"""Addresses in a configuration: no credentials, and a form that a server can check before it stores them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from ospo_core.config import RoundConfig, change_config, load_profile
from ospo_core.errors import ConfigError

WITH_CREDENTIALS = [
    "storage.root=s3://me:hush@bucket/x",
    "storage.root=me:hush@host:9000/bucket",
    "storage.root=[s3://me:hush@bucket]",
    "storage.root={s3://me:hush@bucket: 1}",
    "storage.endpoint_url=http://me:hush@host",
    "storage.endpoint_url=me:hush@host",
    "storage.endpoint_url=http://me:hu/sh@host",
    "storage.scratch=//me:hush@host/x",
    "storage={endpoint_url: 'http://me:hush@host'}",
    "storage='http://me:hush@host'",
    "engine.base_url=http://me:hush blank@host",
    "engine.base_url=http://host/?api_key=hush",
    "engine.basis=http://me:hush@host",
    "engine.served_model=http://me:hush@host",
    "model.path=https://me:hush@hub/x",
    "execution.ray_address=ray://me:hush@host:10001",
    "prompts.contamination_lists=[a.txt, 'http://me:hush@host']",
    "evaluation.prompts=http://me:hush@host/x",
    "name=http://me:hush@host",
    "http://me:hush@host=1",
    "http://me:hush@host",
]


@pytest.mark.parametrize("override", WITH_CREDENTIALS)
def test_credentials_are_refused_in_any_option_and_never_shown(override: str) -> None:
    for read in (lambda: load_profile("smoke", [override]), lambda: change_config(load_profile("smoke"), [override])):
        with pytest.raises(ConfigError) as caught:
            read()
        shown = str(caught.value)
        assert not re.search("hush|hu/sh|blank", shown), shown


def test_errors_of_pydantic_itself_show_no_credentials() -> None:
    """Prefect shows them when it validates the parameters of a flow."""
    for storage in ({"root": "s3://me:hush@bucket"}, {"nothing": "s3://me:hush@bucket"}):
        with pytest.raises(ValidationError) as caught:
            RoundConfig.model_validate({"name": "x", "storage": storage})
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("engine.base_url", "localhost:8000", "is not an address"),
        ("engine.base_url", "http://[::1", "is not an address"),
        ("engine.base_url", "http://host:99999", "is not an address"),
        ("storage.endpoint_url", "ftp://host", "is not an address"),
        ("storage.endpoint_url", "http://host/a b", "is not an address"),
        ("storage.endpoint_url", '"http://host/\\e[2J"', "is not an address"),
        ("evaluation.judge_url", "http://host#x", "a fragment"),
        ("storage.root", "~nobody-of-this-name/x", "the home folder of nobody"),
        ("storage.root", f"/tmp/{'x' * 256}", "longer than 255 bytes"),
        ("storage.scratch", '"a\\0b"', "NUL"),
        ("storage.scratch", f"{'x/' * 2000}", "2000 characters"),
    ],
)
def test_what_is_no_address_is_named(option: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}: .*{problem}"):
        load_profile("smoke", [f"{option}={value}"])


def test_addresses_without_credentials_stay_as_they_are() -> None:
    given = {"root": "s3://bucket/me@home", "endpoint_url": "https://[::1]:9000/a", "scratch": "~/me@home"}
    config = load_profile("smoke", [f"storage.{name}={value}" for name, value in given.items()])
    assert given.items() <= config.storage.model_dump().items()
    assert load_profile("smoke", ["model.path=OWNER/NAME@abc"]).model.path == "OWNER/NAME@abc"


def pattern(section: str, option: str) -> str:
    """The regular expression of an option in the JSON schema of a round."""
    schema: dict[str, Any] = RoundConfig.model_json_schema()
    found = schema["$defs"][section]["properties"][option]
    return next(str(one["pattern"]) for one in found.get("anyOf", [found]) if "pattern" in one)


@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("StorageConfig", "root"),
        ("StorageConfig", "endpoint_url"),
        ("EngineConfig", "base_url"),
        ("EvaluationConfig", "judge_url"),
    ],
)
def test_the_schema_refuses_credentials_too(section: str, option: str) -> None:
    assert not re.search(pattern(section, option), "http://me:hush@host")
    assert re.search(pattern(section, option), "http://host:8000/v1")
