"""The embedded world of coloured shapes on a grid, its exact oracle, and the tiny Janus trained on it."""

from pathlib import Path

HELDOUT_FILE = Path(__file__).parent / "data" / "heldout.jsonl"
"""The held-out prompts of the embedded world, as JSON lines."""
