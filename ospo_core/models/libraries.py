"""The oldest versions of the libraries that models need, checked before a round has paid for anything."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from ospo_core.errors import ModelError

FLOORS = {
    "torch": "2.6",
    "transformers": "5.0",  # 4.57 draws, but returns a picture's features in another form: every answer fails
    "tokenizers": "0.22",
    "huggingface_hub": "1.0",
    "peft": "0.18",
}
"""Library to its oldest version that works; the same as in pyproject.toml."""


def check_libraries() -> None:
    """Check the installed versions, without importing the libraries.

    Raises:
        ModelError: a library is missing, or older than a round needs.
    """
    for name, floor in FLOORS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = None
        if found is None or Version(found) < Version(floor):
            raise ModelError(
                "too old for the models of this package" if found else "not installed",
                field=name,
                value=found,
                remedy=f"Install it with `pip install '{name}>={floor}'`",
            )
