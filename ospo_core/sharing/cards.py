"""The card (`README.md`) of an exported dataset or model: where it comes from, what is in it, how to load it.

A local path is not named, since a card is made to be published; nor is a licence that nobody has stated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import yaml

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config.sections import EMBEDDED
from ospo_core.errors import ConfigError
from ospo_core.report.formats import escaped, human, markdown_table, measure, percent, reasons, whole
from ospo_core.schema import StageName
from ospo_core.sharing import Part
from ospo_core.sharing.features import features_of_card
from ospo_core.sharing.rows import PAIRS

Manifests = Mapping[StageName, Manifest]

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_PAPER = "https://arxiv.org/abs/2506.02015"
_SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
_NAMED_SOURCES = ("hub:", "stored:", EMBEDDED)
_MEANINGS = {
    PAIRS: "a prompt, the picture that satisfies it (`chosen`), and one that does not (`rejected`)",
    Part.TRL: "preference rows for TRL's `DPOTrainer` with a vision-language model: which text fits the picture",
    Part.PROMPTS: "the prompts, with the objects and relations they name",
    Part.PERTURBATIONS: "the hard negatives of the prompts, and the long descriptions that were drawn",
    Part.QUESTIONS: "the yes/no questions about each prompt",
    Part.IMAGES: "all pictures that were drawn, with their image tokens",
    Part.SCORES: "the answers about each picture, and its score",
}


@dataclass(frozen=True)
class Origin:
    """A model and where it was found; `source` as in `ModelRef`."""

    digest: str
    source: str

    def in_words(self) -> str:
        """Return the digest and the source, without a folder of somebody's machine."""
        source = self.source if self.source.startswith(_NAMED_SOURCES) else "a local folder"
        return f"`{self.digest}` ({escaped(source.removeprefix('hub:').removeprefix('stored:'))})"


@dataclass(frozen=True)
class Provenance:
    """What a card says of the origin of data.

    Args:
        round: id of the round.
        profile: its name.
        seed: its seed.
        model: the model that the round started from.
        family: its prompt family.
        license: identifier of a licence, as the Hugging Face Hub names them; None states none.

    Raises:
        ConfigError: the licence is not such an identifier.
    """

    round: str
    profile: str
    seed: int
    model: Origin
    family: str
    license: str | None = None

    def __post_init__(self) -> None:
        if self.license is not None and _LICENSE.fullmatch(self.license) is None:
            raise ConfigError(
                "is not an identifier of a licence",
                field="--license",
                value=self.license,
                remedy="Give one as the Hugging Face Hub names it, e.g. cc-by-4.0 or apache-2.0",
            )

    @property
    def title(self) -> str:
        """What the card is headed with, on one line."""
        return f"Preference pairs of {' '.join(self.profile.split())}, seed {self.seed}"


@dataclass(frozen=True)
class SharedTable:
    """One configuration of a dataset.

    Args:
        name: its name.
        folder: folder of its files.
        columns: their schema.
        rows: number of rows of each split.
        sizes: bytes of each split in memory.
        file_bytes: size of the files.
    """

    name: str
    folder: str
    columns: pa.Schema
    rows: Mapping[str, int]
    sizes: Mapping[str, int]
    file_bytes: int

    @property
    def total(self) -> int:
        """Number of rows in all splits."""
        return sum(self.rows.values())


def dataset_card(tables: Sequence[SharedTable], manifests: Manifests, provenance: Provenance) -> str:
    """Return the card of a dataset; `tables` begins with the pairs."""
    pairs, lines = tables[0], [f"# {escaped(provenance.title)}", ""]
    lines += [
        f"{whole(pairs.total)} pairs for preference learning of text-to-image models: pictures that a model drew and "
        f"judged itself (OSPO, [arXiv 2506.02015]({_PAPER})). Made by OSPO {version('ospo')}.",
        "",
        "## Contents",
        "",
        *markdown_table(
            ["Configuration", "Rows", "What a row is"],
            [[f"`{table.name}`", whole(table.total), _MEANINGS[table.name]] for table in tables],
            figures=[1],
        ),
        "",
        *markdown_table(
            ["Split", *(f"`{table.name}`" for table in tables)],
            [[f"`{split}`", *(whole(table.rows.get(split, 0)) for table in tables)] for split in _splits(tables)],
            figures=range(1, len(tables) + 1),
        ),
        "",
        "## How to load it",
        "",
        *_code("python", "from datasets import load_dataset", "", 'pairs = load_dataset("path/to/this/folder")'),
        "",
        f'`load_dataset(folder, "{tables[-1].name}")` opens the configuration of that name. `chosen` and',
        "`rejected` are decoded to pictures. `chosen_tokens` and `rejected_tokens` are the image tokens that were",
        "sampled, codes of the model whose digest is in `tokens_model`; another model needs the pictures.",
        "`ospo import-pairs FOLDER` takes this folder back.",
        "",
        *(_trl() if any(table.name == Part.TRL for table in tables) else ()),
        *_origin(manifests, provenance),
    ]
    return _front_matter(_dataset_facts(tables, provenance)) + "\n".join(lines)


def model_card(model: str, training: Manifest, evaluation: Manifest | None, network: str) -> str:
    """Return the card of a trained checkpoint.

    Args:
        model: its digest.
        training: the training that made it.
        evaluation: the evaluation in which it was the child, if any.
        network: its class in transformers.
    """
    parent = Origin(str(training.extra["parent_digest"]), str(training.extra.get("parent_source", "")))
    settings = (training.ingredients.get("fields") or {}).get("training") or {}
    family = escaped(str((training.ingredients.get("model") or {}).get("family", "")))
    data = [f"pairs of its round, content {escaped(one)}" for one in training.ingredients.get("upstream", {}).values()]
    if imported := settings.get("imported_pairs"):
        data.append(f"{whole(training.counts.get('imported_pairs', 0))} imported pairs, {escaped(str(imported))}")
    lines = [
        f"# Model {model[:12]}",
        "",
        f"A unified model that was trained on preference pairs which its parent drew and judged itself (OSPO, "
        f"[arXiv 2506.02015]({_PAPER})). Made by OSPO {version('ospo')}.",
        "",
        *markdown_table(
            ["", ""],
            [
                ["Digest", f"`{model}`"],
                ["Parent", parent.in_words()],
                ["Prompt family", family],
                ["Pairs", whole(training.counts.get("pairs", 0))],
                ["Data", "; ".join(data)],
                ["Steps", whole(training.counts.get("steps", 0))],
                ["Learning rate", escaped(str(settings.get("learning_rate", "")))],
                ["Training", f"`{training.fingerprint}`, {training.created_at}"],
            ],
        ),
        "",
        *_figures(evaluation),
        "## How to load it",
        "",
        "The whole model, adapter merged in, with stock transformers:",
        "",
        *_code(
            "python",
            f"from transformers import AutoTokenizer, {network}",
            "",
            f'model = {network}.from_pretrained("path/to/this/folder")',
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        ),
        "",
        "The adapter alone, with stock PEFT on the parent:",
        "",
        *_code(
            "python",
            "from peft import PeftModel",
            f"from transformers import {network}",
            "",
            f'parent = {network}.from_pretrained("path/to/the/parent")',
            'model = PeftModel.from_pretrained(parent, "path/to/this/folder/adapter")',
        ),
        "",
    ]
    facts = {"library_name": "transformers", "pipeline_tag": "text-to-image", "tags": ["ospo", "preference", "lora"]}
    return _front_matter(facts) + "\n".join(lines)


def _trl() -> list[str]:
    return [
        "The rows of `trl` have the columns of TRL's vision preference format (`images`, and `prompt`, `chosen`,",
        "`rejected` as messages), which `trl.DPOTrainer` reads. Trainers of TRL learn to write text, not pictures, so",
        "a row prefers the prompt of the chosen picture to its perturbed prompt. For the preference between pictures",
        "use `pairs`.",
        "",
        *_code(
            "python",
            "from datasets import concatenate_datasets, load_dataset",
            "from trl import DPOTrainer",
            "",
            'rows = concatenate_datasets(list(load_dataset("path/to/this/folder", "trl").values()))',
            "DPOTrainer(model, train_dataset=rows, processing_class=processor).train()",
        ),
        "",
    ]


def _origin(manifests: Manifests, provenance: Provenance) -> list[str]:
    """Return the lines on the round: its model, its stages, what was dropped and why."""
    order = list(StageName)
    rows = [
        [stage.value, whole(one.items_in), whole(one.rows), ", ".join(f"{n} {why}" for why, n in reasons(one.drops))]
        for stage, one in manifests.items()
        if order.index(stage) < order.index(StageName.TRAINING)
    ]
    quality = manifests[StageName.PAIRS].extra.get("quality") or {}
    known = [[human(name), percent(share)] for name, share in quality.items() if share is not None]
    selection = (manifests[StageName.PAIRS].ingredients.get("fields") or {}).get("selection") or {}
    lines = [
        "## Where it comes from",
        "",
        *markdown_table(
            ["", ""],
            [
                ["Round", f"`{provenance.round}`"],
                ["Profile", escaped(provenance.profile)],
                ["Seed", str(provenance.seed)],
                ["Model that drew and judged", provenance.model.in_words()],
                ["Prompt family", f"`{provenance.family}`"],
                ["Rule of selection", escaped(str(selection.get("rule", "")))],
                ["Pairs", f"`{manifests[StageName.PAIRS].fingerprint}`"],
            ],
        ),
        "",
        "What each stage was given, kept and dropped:",
        "",
        *markdown_table(["Stage", "In", "Out", "Dropped"], rows, figures=[1, 2]),
        "",
    ]
    if known:
        lines += [
            "What an oracle, which took no part, says of the selection:",
            "",
            *markdown_table(["Figure", "Share"], known, figures=[1]),
            "",
        ]
    licence = f"`{escaped(provenance.license)}`, stated by who exported it" if provenance.license else "None is stated."
    return [*lines, "## Licence", "", licence, ""]


def _figures(evaluation: Manifest | None) -> list[str]:
    """Return the lines on the evaluation."""
    if evaluation is None:
        return []
    decision: dict[str, Any] = evaluation.extra["decision"]
    rows = [
        [human(group["name"]), str(group["prompts"]), percent(group["parent"]), percent(group["child"])]
        for group in (*decision["categories"], decision["overall"])
    ]
    return [
        f"{escaped(measure(decision, ' on held-out prompts,'))}: {escaped(decision['reason'])}.",
        "",
        *markdown_table(["Category", "Prompts", "Parent", "This model"], rows, figures=[1, 2, 3]),
        "",
    ]


def _dataset_facts(tables: Sequence[SharedTable], provenance: Provenance) -> dict[str, Any]:
    """Return what the head of a dataset's card tells programs."""
    total = tables[0].total
    facts: dict[str, Any] = {"license": provenance.license} if provenance.license else {}
    facts |= {
        "pretty_name": provenance.title,
        "task_categories": ["text-to-image"],
        "tags": ["ospo", "preference", "dpo", "synthetic"],
        "size_categories": [_size_category(total)],
        "configs": [
            {
                "config_name": table.name,
                **({"default": True} if table.name == PAIRS else {}),
                "data_files": [
                    {"split": split, "path": f"{table.folder}/{split}-*.parquet"} for split in sorted(table.rows)
                ],
            }
            for table in tables
        ],
        "dataset_info": [
            {
                "config_name": table.name,
                "features": features_of_card(table.columns),
                "splits": [
                    {"name": split, "num_bytes": table.sizes[split], "num_examples": rows}
                    for split, rows in sorted(table.rows.items())
                ],
                "download_size": table.file_bytes,
                "dataset_size": sum(table.sizes.values()),
            }
            for table in tables
        ],
    }
    return facts


def _splits(tables: Sequence[SharedTable]) -> list[str]:
    return sorted({split for table in tables for split in table.rows})


def _size_category(total: int) -> str:
    """Return the size as the hub words it: `1K<n<10K`."""
    names = {10**3: "1K", 10**4: "10K", 10**5: "100K", 10**6: "1M", 10**7: "10M"}
    above = next((size for size in _SIZES if total < size), None)
    if above is None:
        return "n>10M"
    return "n<1K" if above == _SIZES[0] else f"{names[above // 10]}<n<{names[above]}"


def _front_matter(facts: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True)}---\n\n"


def _code(language: str, *lines: str) -> list[str]:
    return [f"```{language}", *lines, "```"]
