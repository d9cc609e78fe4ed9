"""Stage `images`: both images of every variant, from the same noise (docs/method.md, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from ospo_core.config import RoundConfig
from ospo_core.schema import Side, StageName, table_from_rows
from ospo_core.stages.base import Phase, Row, ShardResult, ShardSpec, Stage
from ospo_core.stages.run import StageRun

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel


class ImagesStage(Stage):
    """Reads `perturbations`, writes `images`: tokens, the decoded picture as PNG, and its log-probability."""

    name: ClassVar[StageName] = StageName.IMAGES
    version: ClassVar[int] = 2
    table: ClassVar[str] = "images"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PERTURBATIONS,)
    phase: ClassVar[Phase] = Phase.MODEL
    follows: ClassVar[StageName | None] = StageName.PERTURBATIONS
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return guidance and temperature; the batch size changes nothing."""
        return config.images.model_dump(mode="json", exclude={"batch_size"})

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Render one shard, the longest prompts first (see `sample_images`); pictures are encoded meanwhile."""
        from ospo_core.models.pictures import PICTURES_IN_MEMORY

        wanted = [image for row in run.rows(StageName.PERTURBATIONS, spec.index) for image in _wanted(row)]
        size = max(PICTURES_IN_MEMORY, run.config.images.batch_size)
        longest_first = sorted(range(len(wanted)), key=lambda place: -len(wanted[place]["dense_prompt"]))
        rows, before = list[dict[str, Any]](), iter(list[dict[str, Any]]())
        if wanted:
            loaded = run.image_model()
            with ThreadPoolExecutor() as pool:
                for start in range(0, len(wanted), size):
                    batch = [wanted[place] for place in longest_first[start : start + size]]
                    encoding = _render(loaded, batch, run.config, pool)
                    rows += before
                    before = encoding
                rows += before
        drawn = dict(zip(longest_first, rows, strict=True))
        rows = [drawn[place] for place in range(len(wanted))]
        tokens = sum(len(row["tokens"]) for row in rows)
        return ShardResult(
            table=table_from_rows("images", rows),
            items_in=len(wanted),
            counts={"images": len(rows), "image_tokens": tokens},
        )


STAGE = ImagesStage()


def _wanted(row: Row) -> Iterator[dict[str, Any]]:
    """Yield what to render for one variant: both sides, with one seed."""
    for side, column in ((Side.BASE, "dense_prompt"), (Side.NEGATIVE, "dense_negative_prompt")):
        same = {name: row[name] for name in ("item_id", "variant", "seed")}
        yield {**same, "side": side.value, "dense_prompt": row[column]}


def _render(
    model: UnifiedModel, wanted: Sequence[Mapping[str, Any]], config: RoundConfig, pool: Executor
) -> Iterator[dict[str, Any]]:
    """Sample and decode some images, and begin to encode them; the rows come once their PNGs are done."""
    from ospo_core.models.pictures import decode_tokens, encode_png
    from ospo_core.models.sampling import sample_images

    sampled = sample_images(
        model,
        [image["dense_prompt"] for image in wanted],
        [image["seed"] for image in wanted],
        config.images.guidance,
        config.images.temperature,
        config.images.batch_size,
    )
    pngs = pool.map(encode_png, decode_tokens(model, sampled.tokens))
    columns = zip(wanted, sampled.tokens.tolist(), pngs, sampled.mean_logprob.tolist(), strict=True)
    return (
        {
            **image,
            "tokens": tokens,
            "image": {
                "bytes": png,
                "path": f"{image['item_id']}-{image['variant']}-{image['side']}.png",  # a name for people who save it
            },
            "mean_logprob": logprob,
        }
        for image, tokens, png, logprob in columns
    )
