"""The figures that `make bench` measures, each against the published way; goals are those of the project.

Where results can be compared, they are, before anything is timed: `Disagreement` says what differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.baselines.images import published_images, transformers_images
from benchmarks.baselines.questions import Together, reread_answers
from benchmarks.baselines.text import TransformersGenerate
from benchmarks.baselines.training import Pairs, PublishedTrainer
from benchmarks.contest import Rival, Row, Side, compare_memory, compete, peak_of_tensors
from benchmarks.device import Limits, measure_limits
from benchmarks.floors import Floors
from benchmarks.random_janus import SIZES, dense_prompts, questions_about, random_janus
from benchmarks.workloads import (
    RoundTrainer,
    embedded_model,
    pairs_table,
    random_pairs,
    requests_after_preamble,
    requests_of,
    text_folder,
    world,
)
from ospo_core.config import load_profile
from ospo_core.config.sections import TrainingConfig
from ospo_core.engines import Completion, Request, TextEngine, build_engine
from ospo_core.models.export import export_text_backbone
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.pictures import decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
_CPU = torch.device("cpu")


class Disagreement(Exception):
    """Two ways of doing the same gave different results, so their times cannot be compared."""


@dataclass(frozen=True)
class Scale:
    """How much is measured; `QUICK` is for tests of the benchmark itself.

    Attributes:
        turns: timed repeats of quick work; `slow_turns` of work that takes many seconds.
        images: of the embedded model, and the larger batch of its rivals.
        pictures: of which questions are asked.
        mid: the size of the random model.
        mid_images, mid_pictures, mid_pairs: with it.
        requests: for text; `mid_requests` with the random model, after a preamble of `preamble` words.
    """

    turns: int = 5
    slow_turns: int = 3
    images: int = 256
    pictures: int = 128
    mid: str = "mid"
    mid_images: int = 4
    mid_pictures: int = 4
    mid_pairs: int = 2
    requests: int = 256
    mid_requests: int = 64
    preamble: int = 300


FULL = Scale()
QUICK = Scale(1, 1, 4, 2, "tiny", 2, 2, 1, 4, 4, 40)


class Machine:
    """What all measurements share: the scale, the default profile, the models and the limits of this machine.

    Attributes:
        scale: how much is measured.
        profile: the default one.
        root: storage of a finished round, if there is one.
    """

    def __init__(self, scale: Scale, root: Path | None = None) -> None:
        self.scale, self.root, self.profile = scale, root, load_profile("shapes")
        self._limits: dict[torch.dtype, Limits] = {}

    @cached_property
    def embedded(self) -> JanusModel:
        """The shipped model."""
        return embedded_model()

    def mid(self, dtype: torch.dtype = FLOAT32) -> JanusModel:
        """Return a new random model of the middle size."""
        return random_janus(SIZES[self.scale.mid], _CPU, dtype)

    def floors(self, model: JanusModel) -> Floors:
        """Return the floors of a model here."""
        if model.dtype not in self._limits:
            self._limits[model.dtype] = measure_limits(_CPU, model.dtype)
        return Floors(model, self._limits[model.dtype])


def embedded_images(machine: Machine) -> Iterator[Row]:
    """Images of the embedded model, without guidance and with it."""
    model, count = machine.embedded, machine.scale.images
    prompts = [item.prompt for item in world(count)]
    batch = min(machine.profile.images.batch_size, count)
    _check_images(model, prompts[:16])
    for guidance, goals in ((1.0, (8.0, 5.0, None)), (5.0, (4.0, 3.0, 3.0))):
        rivals = _image_rivals(model, prompts, guidance, goals)
        ours = Side(_sampling(model, prompts, guidance, batch), count)
        floor = machine.floors(model).sampling(prompts, batch, guidance)
        figure = f"images/s, embedded, guidance {guidance:g}"
        yield from compete(figure, ours, rivals if guidance > 1 else rivals[:2], machine.scale.turns, floor)


def mid_images(machine: Machine) -> Iterator[Row]:
    """Images of Janus-Pro's size by a small model, with guidance."""
    count = machine.scale.mid_images
    for dtype in (FLOAT32, BFLOAT16):
        model, prompts = machine.mid(dtype), dense_prompts(count)
        ours = Side(_sampling(model, prompts, 5.0, count), count)
        theirs = Side(partial(published_images, model, prompts, 5.0, count), count)
        floor = machine.floors(model).sampling(prompts, count, 5.0)
        figure = f"images/s, {model.geometry.tokens} tokens, {_name(dtype)}, guidance 5, batch {count}"
        yield from compete(figure, ours, [Rival("published loop", 2.5, theirs)], machine.scale.slow_turns, floor, False)


def _sampling(model: JanusModel, prompts: Sequence[str], guidance: float, batch: int) -> Callable[[], object]:
    """Return the work of the round's sampler."""
    return lambda: sample_images(model, prompts, range(len(prompts)), guidance, 1.0, batch)


def _image_rivals(
    model: JanusModel, prompts: Sequence[str], guidance: float, goals: Sequence[float | None]
) -> list[Rival]:
    """Return the published loop at its own batch and at a large one, and transformers' own loop."""
    count = len(prompts)
    few = prompts[: max(8, count // 4)]
    small = Side(lambda: published_images(model, few, guidance, 8), len(few))
    large = Side(lambda: published_images(model, prompts, guidance, count), count)
    own = Side(lambda: transformers_images(model, prompts, guidance, count), count)
    names = ("published loop, batch 8", f"published loop, batch {count}", f"transformers' generate, batch {count}")
    return [Rival(*rival) for rival in zip(names, goals, (small, large, own), strict=True)]


def _check_images(model: JanusModel, prompts: Sequence[str]) -> None:
    """Compare the most probable tokens of all ways."""
    for guidance in (1.0, 5.0):
        ours = sample_images(model, prompts, range(len(prompts)), guidance, 0.0, len(prompts)).tokens
        ways = [published_images] if guidance == 1.0 else [published_images, transformers_images]
        for way in ways:
            if not np.array_equal(ours, way(model, prompts, guidance, 8, greedy=True).numpy()):
                raise Disagreement(f"{way.__name__}, guidance {guidance}: other tokens than the round's sampler")


def embedded_questions(machine: Machine) -> Iterator[Row]:
    """The world's own questions about pictures of the embedded model."""
    model, asked = machine.embedded, [item.questions for item in world(machine.scale.pictures)]
    tokens = np.random.default_rng(0).integers(0, model.geometry.codes, (len(asked), model.geometry.tokens))
    rivals: dict[str, tuple[Together, float | None]] = {
        "a question at a time": (1, None),
        "a picture at a time": ("picture", 5.0),
        "re-read, batch 256": (256, 3.5),
    }
    yield from _questions(machine, model, "embedded", decode_tokens(model, tokens), asked, rivals, machine.scale.turns)


def mid_questions(machine: Machine) -> Iterator[Row]:
    """Five and seven questions about pictures of Janus-Pro's size."""
    count, turns = machine.scale.mid_pictures, machine.scale.slow_turns
    for dtype, goals in ((FLOAT32, (5.0, 5.0)), (BFLOAT16, (6.0, 6.0))):
        model = machine.mid(dtype)
        shape = (count, model.geometry.height, model.geometry.width, 3)
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for number, goal in zip((5, 7), goals, strict=True):
            asked = [questions_about(picture, number) for picture in range(count)]
            name = f"{model.geometry.read_positions} tokens, {number} a picture, {_name(dtype)}"
            rivals: dict[str, tuple[Together, float | None]] = {"a picture at a time": ("picture", goal)}
            yield from _questions(machine, model, name, pictures, asked, rivals, turns)


def _questions(
    machine: Machine,
    model: JanusModel,
    name: str,
    pictures: NDArray[np.uint8],
    asked: Sequence[Sequence[str]],
    rivals: Mapping[str, tuple[Together, float | None]],
    turns: int,
) -> list[Row]:
    """Compare answers, then times."""
    count, batch = sum(map(len, asked)), machine.profile.scores.batch_size
    ours = answer_questions(model, pictures, asked, batch)
    theirs = reread_answers(model, pictures, asked, "picture")
    worst = max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in zip(ours, theirs, strict=True) if a)
    if worst > (1e-4 if model.dtype is FLOAT32 else 5e-2):
        raise Disagreement(f"answers of {name} differ by {worst:.2g}")
    ways = [Rival(way, goal, _rereading(model, pictures, asked, how)) for way, (how, goal) in rivals.items()]
    work = Side(lambda: answer_questions(model, pictures, asked, batch), count)
    return compete(f"questions/s, {name}", work, ways, turns, machine.floors(model).answering(asked))


def _rereading(
    model: JanusModel, pictures: NDArray[np.uint8], asked: Sequence[Sequence[str]], together: Together
) -> Side:
    """Return a baseline of questions; of those that are slow, a quarter of the pictures is enough for a rate."""
    few = len(asked) if together != 1 else max(1, len(asked) // 4)
    work = partial(reread_answers, model, pictures[:few], asked[:few], together)
    return Side(work, sum(map(len, asked[:few])))


def embedded_training(machine: Machine) -> Iterator[Row]:
    """Optimiser steps of the default profile."""
    config = machine.profile.training
    size = config.batch_size if machine.scale is FULL else 2
    geometry = machine.embedded.geometry
    tokens = np.random.default_rng(0).integers(0, geometry.codes, (2 * size, geometry.tokens), dtype=np.uint16)
    items = world(size + 1)
    prompts = [item.prompt for item in items]
    pairs = Pairs(prompts[:-1], prompts[1:], tokens[:size], tokens[size:])
    yield from _training(machine, "embedded", embedded_model, pairs, config, 3.0, machine.scale.turns)


def mid_training(machine: Machine) -> Iterator[Row]:
    """Optimiser steps on images of Janus-Pro's size, with the paper's adapter."""
    model = machine.mid()
    shape = (2 * machine.scale.mid_pairs, model.geometry.tokens)
    pairs = random_pairs(np.random.default_rng(0).integers(0, model.geometry.codes, shape, dtype=np.uint16))
    name = f"{model.geometry.tokens} tokens"
    yield from _training(machine, name, machine.mid, pairs, TrainingConfig(), 2.0, machine.scale.slow_turns)


def _training(
    machine: Machine,
    name: str,
    new_model: Callable[[], JanusModel],
    pairs: Pairs,
    config: TrainingConfig,
    goal: float,
    turns: int,
) -> Iterator[Row]:
    """Compare losses, times and peaks of memory of steps on one batch, with and without recomputation."""
    config = config.model_copy(update={"caption_dropout": 0.0})
    _check_losses(new_model, pairs, config)
    ours, again = (RoundTrainer(new_model(), pairs, config, recompute) for recompute in (False, True))
    plain, slow = (PublishedTrainer(new_model(), config, recompute) for recompute in (False, True))
    rivals = [
        Rival("published step", goal, Side(lambda: plain.step(pairs), len(pairs))),
        Rival("published step, recomputed", None, Side(lambda: slow.step(pairs), len(pairs))),
    ]
    floor = machine.floors(machine.embedded if name == "embedded" else machine.mid())
    least = floor.training(pairs.prompts, pairs.negatives)
    warm = turns > machine.scale.slow_turns
    yield from compete(f"training pairs/s, {name}", Side(ours.step, len(pairs)), rivals, turns, least, warm)
    again.step()  # the optimiser's state is not what a step takes
    peak, lean = peak_of_tensors(lambda: plain.step(pairs)), peak_of_tensors(lambda: slow.step(pairs))
    for label, mine, half in (("", ours, None), (", ours recomputed", again, 2.0)):
        peaks = {"published step": (peak, 2.0), "published step, recomputed": (lean, half)}
        figure = f"training peak memory (MB of tensors), {name}{label}"
        yield from compare_memory(figure, peak_of_tensors(mine.step), peaks)


def _check_losses(new_model: Callable[[], JanusModel], pairs: Pairs, config: TrainingConfig) -> None:
    """Compare the losses of two steps without dropout, from the same adapter."""
    plain = config.model_copy(update={"lora": config.lora.model_copy(update={"dropout": 0.0})})
    ours, theirs = RoundTrainer(new_model(), pairs, plain, False), PublishedTrainer(new_model(), plain, False)
    ours.give_adapter_to(theirs.adapted)
    for step in range(2):
        mine, other = ours.step(), theirs.step(pairs)
        if abs(mine - other) > 1e-4:
            raise Disagreement(f"losses of step {step} differ: {mine:.6f} and {other:.6f}")


def embedded_text(machine: Machine) -> Iterator[Row]:
    """Decompositions of the world's prompts by the embedded model, in the default profile's engine."""
    prompts = [item.prompt for item in world(machine.scale.requests)]
    with tempfile.TemporaryDirectory() as folder:
        exported = export_text_backbone(machine.embedded.folder, Path(folder) / "text")

        def requests(greedy: bool) -> list[Request]:
            return requests_of(prompts, 64, greedy)

        yield from _text(machine, machine.embedded, "embedded", exported, requests, ((8, 5.0), (64, 3.0)), 256)


def mid_text(machine: Machine) -> Iterator[Row]:
    """Short answers after a long preamble that all requests share, as few-shot examples are."""
    model = machine.mid()
    with tempfile.TemporaryDirectory() as folder:
        saved = text_folder(model, Path(folder))

        def requests(greedy: bool) -> list[Request]:
            return requests_after_preamble(machine.scale.mid_requests, machine.scale.preamble, 24, greedy)

        name = f"hidden {model.backbone.config.hidden_size}, preamble of {machine.scale.preamble} words"
        yield from _text(machine, model, name, saved, requests, ((8, None), (64, 10.0)), 1024)


def _text(
    machine: Machine,
    model: JanusModel,
    name: str,
    folder: Path,
    requests: Callable[[bool], list[Request]],
    batches: Sequence[tuple[int, float | None]],
    window: int,
) -> list[Row]:
    """Compare greedy texts, then times of drawn ones."""
    rival, drawn = TransformersGenerate(folder), requests(False)
    limit, prompts = drawn[0].max_tokens, [request.prompt for request in drawn]
    config = machine.profile.engine.model_copy(update={"max_model_len": window})
    if window > 256:  # on a CPU vLLM begins with a pass over as many whole prompts
        config = config.model_copy(update={"max_num_seqs": 16, "kv_cache_gib": 1.0})
    with build_engine(config, folder) as engine:
        note = _check_texts(engine, rival, requests(True)[:8], limit)
        ways = [
            Rival(
                f"transformers' generate, batch {size}",
                goal,
                Side(partial(rival.answers, prompts[: max(size, len(prompts) // 4)], limit, size, False), _written),
            )
            for size, goal in batches
        ]
        quick = window <= 256
        turns, ours = (3 if quick else 2), Side(lambda: engine.generate(drawn), _tokens)
        rows = compete(f"text tokens/s, {name}", ours, ways, turns, warm=quick)
        written = _tokens(engine.generate(drawn))
    given = sum(map(len, rival.ids(prompts)))
    shared = given // len(drawn) if window > 256 else 0
    least = machine.floors(model).writing(shared, given - shared * len(drawn), int(written), config.max_num_seqs)
    share = least * rows[0].ours / written
    return [Row(**{**vars(row), "floor_share": share, "note": f"{config.kind}; {note}"}) for row in rows]


def _check_texts(engine: TextEngine, rival: TransformersGenerate, requests: Sequence[Request], limit: int) -> str:
    """Compare the lengths of greedy answers; random weights have near ties, so that not all may be equal."""
    ours = [answer.tokens for answer in engine.generate(requests)]
    theirs = list(map(len, rival.answers([request.prompt for request in requests], limit, 8, greedy=True)))
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    if same < len(ours) * 3 / 4:
        raise Disagreement(f"only {same} of {len(ours)} greedy answers are as long as transformers'")
    return f"{same} of {len(ours)} greedy answers equally long"


def _tokens(made: object) -> float:
    """Return the tokens of an engine's answers."""
    return sum(answer.tokens for answer in cast("list[Completion]", made))


def _written(made: object) -> float:
    """Return the tokens of the baseline's answers."""
    return sum(map(len, cast("list[list[int]]", made)))


def pair_bytes(machine: Machine) -> Iterator[Row]:
    """Bytes that training reads of a pair, against the two pictures of it as PNG."""
    for name, model in (("embedded", machine.embedded), (f"{machine.scale.mid} size, random weights", machine.mid())):
        shape = (16 if machine.scale is FULL else 2, model.geometry.tokens)
        tokens = np.random.default_rng(0).integers(0, model.geometry.codes, shape, dtype=np.uint16)
        buffer = BytesIO()
        pq.write_table(pairs_table(random_pairs(tokens)), buffer, compression="zstd")
        pairs = len(tokens) // 2
        ours = buffer.tell() / pairs
        theirs = sum(len(encode_png(picture)) for picture in decode_tokens(model, tokens, 2)) / pairs
        ratio = theirs / ours
        goal = 150.0 if name != "embedded" and machine.scale is FULL else None
        yield Row(f"bytes read per pair, {name}", "two PNGs", ratio, ratio, ratio, goal, ours, theirs)


def _name(dtype: torch.dtype) -> str:
    """Return the short name of a type."""
    return {FLOAT32: "fp32", BFLOAT16: "bf16"}[dtype]


GROUPS: dict[str, tuple[Callable[[Machine], Iterator[Row]], ...]] = {
    "images": (embedded_images, mid_images),
    "questions": (embedded_questions, mid_questions),
    "training": (embedded_training, mid_training),
    "text": (embedded_text, mid_text),
    "bytes": (pair_bytes,),
}
"""What `--only` can choose from."""
