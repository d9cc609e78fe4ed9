"""The folders that the benchmarks' own tools read, so that pictures drawn here can be scored by them as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt
from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, T2I_COMPBENCH

_LONGEST_NAME = 255

Row = Mapping[str, Any]


def write_layout(folder: Path, name: str, prompts: Sequence[BenchmarkPrompt], drawn: Iterable[Row]) -> list[str]:
    """Write pictures into `folder` as the tools of benchmark `name` expect them.

    - T2I-CompBench: `<category>/samples/<prompt>_<six digits>.png`, the digits counting the pictures of the category;
    - GenEval: `<five digits>/metadata.jsonl` and `<five digits>/samples/<four digits>.png`;
    - DPG-Bench: `<prompt id>.png`, all pictures of a prompt in a grid of two columns;
    - one's own prompts: `<prompt id>-<number>.png`.

    Args:
        folder: an existing folder.
        name: of the protocol.
        prompts: all prompts, in order.
        drawn: rows with `item_id`, `sample` and `image`; those of one prompt follow each other.

    Returns:
        The ids of prompts that could not be written, since the layout puts the prompt into a file name, where their
        text is too long or has a character (`/`, `_`) that the tool would misread.
    """
    by_id = {prompt.item_id: prompt for prompt in prompts}
    counts: dict[str, int] = defaultdict(int)
    skipped: dict[str, None] = {}
    waiting: list[Row] = []
    for row in drawn:
        if waiting and waiting[0]["item_id"] != row["item_id"]:
            _write(folder, name, by_id[waiting[0]["item_id"]], waiting, counts, skipped)
            waiting = []
        waiting.append(row)
    if waiting:
        _write(folder, name, by_id[waiting[0]["item_id"]], waiting, counts, skipped)
    return list(skipped)


def _write(
    folder: Path,
    name: str,
    prompt: BenchmarkPrompt,
    rows: Sequence[Row],
    counts: dict[str, int],
    skipped: dict[str, None],
) -> None:
    """Write the pictures of one prompt."""
    pictures = [row["image"]["bytes"] for row in sorted(rows, key=lambda row: row["sample"])]
    if name == T2I_COMPBENCH:
        first = counts[prompt.category]
        counts[prompt.category] += len(pictures)
        files = {f"{prompt.prompt}_{first + index:06d}.png": picture for index, picture in enumerate(pictures)}
        if any(sign in prompt.prompt for sign in "/_\0") or len(max(files, key=len).encode()) > _LONGEST_NAME:
            skipped[prompt.item_id] = None
            return
        _save(folder / prompt.category / "samples", files)
    elif name == GENEVAL:
        place = folder / f"{prompt.number:05d}"
        _save(place / "samples", {f"{index:04d}.png": picture for index, picture in enumerate(pictures)})
        (place / "metadata.jsonl").write_text(prompt.line, encoding="utf-8")
    elif not prompt.item_id.replace("_", "").replace("-", "").replace(".", "").isalnum():
        skipped[prompt.item_id] = None
    elif name == DPG:
        _save(folder, {f"{prompt.item_id}.png": grid(pictures)})
    else:
        _save(folder, {f"{prompt.item_id}-{index}.png": picture for index, picture in enumerate(pictures)})


def grid(pictures: Sequence[bytes], columns: int = 2) -> bytes:
    """Return pictures of one size side by side, row by row, as one PNG; a single one as it is."""
    if len(pictures) == 1:
        return pictures[0]
    tiles = [Image.open(BytesIO(picture)).convert("RGB") for picture in pictures]
    width, height = tiles[0].size
    whole = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for index, tile in enumerate(tiles):
        whole.paste(tile, (index % columns * width, index // columns * height))
    buffer = BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()


def _save(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
