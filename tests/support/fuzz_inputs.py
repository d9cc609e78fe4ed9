"""Hostile inputs as strategies: odd values, texts, paths and addresses, shared by everything that is fuzzed."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from ospo_core.config import RoundConfig, profile_names

SECRET = "hush-hush-9f2c"
"""A password that inputs carry, and that no message may show."""

ODD_NUMBERS = st.sampled_from([-1, 0, 2**31, 2**63, 2**64, 10**40, 10**400, -0.0, 1e-320, 1e300, 1e999, -1e999])
ODD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\u2028",
        "\ud800",
        "\udcff",
        "\u202e",
        "\x1b[31m",
        "[/x]",
        "..",
        "~nosuchuser",
        "a" * 300,
        "9" * 5000,
    ]
)
ODD_PATHS = st.sampled_from(
    ["../x", "/etc/passwd", "models/../../x", "a//b", "C:\\x", "x\0y", "./", "dir://x", "gs://b/x"]
)
ADDRESSES = st.sampled_from(
    [
        f"http://u:{SECRET}@h",
        f"s3://u:{SECRET}@b/x",
        f"u:{SECRET}@h:80",
        f"https://h/?api_key={SECRET}",
        "http://[::1",
        "http://h:99999",
        "localhost:9000",
        "s3://",
        "://",
    ]
)
TEXTS = st.one_of(st.text(st.characters(codec=None), max_size=20), ODD_TEXTS, ODD_PATHS, ADDRESSES)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD_NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
"""Whatever JSON and Python can spell, and what only looks like it."""

YAML_TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from(
        [
            "2026-99-99",
            "2026-01-01",
            "!!bool x",
            "!!python/object/apply:os.system [id]",
            "!!binary AA==",
            "!!set {a}",
            "&a [*a]",
            "*a",
            "[" * 2000,
            "{a: 1, a: 2}",
            "? [a]\n: b",
            "<<: 1",
            "a: &x [1]\nb: *x",
            "0x",
            "1:99:99",
            "\t",
            "\ufeff",
            "9" * 5000,
            "1e999",
            "%YAML 9.9\n---\na",
            "--- a\n--- b",
            "!<tag:yaml.org,2002:int> []",
        ]
    ),
    VALUES.map(str),
)
"""Texts that are read as YAML."""


def option_names(model: type[BaseModel] = RoundConfig, prefix: str = "") -> list[str]:
    """Return every section and dotted option of a configuration."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        found.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += option_names(field.annotation, f"{prefix}{name}.")
    return found


OPTIONS = st.sampled_from(option_names()) | st.builds("{}.{}".format, st.sampled_from(option_names()), TEXTS)
OVERRIDES = st.builds("{}={}".format, OPTIONS, YAML_TEXTS | SCALARS.map(str)) | TEXTS
PROFILES = st.sampled_from(profile_names()) | TEXTS
DOCUMENTS = st.dictionaries(
    st.sampled_from(list(RoundConfig.model_fields)) | TEXTS,
    VALUES | st.dictionaries(st.sampled_from([name.rpartition(".")[2] for name in option_names()]), VALUES, max_size=4),
    max_size=5,
)
"""What a profile may hold, section by section."""


def changed(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return a copy of a JSON document with another value at `path`; Ellipsis removes it."""
    if not path:
        return value
    first, *rest = path
    made: Any = dict(document) if isinstance(document, dict) else list(document)
    if not rest and value is ...:
        del made[first]
    else:
        made[first] = changed(made[first], tuple(rest), value)
    return made


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON document, itself not included."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inner = list(document.items())
    elif isinstance(document, list):
        inner = list(enumerate(document[:3]))
    return [found for name, value in inner for found in [(*path, name), *places(value, (*path, name))]]
