"""The configuration of a round, by section; the source of a default is given in its description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ospo_core.config.addresses import Folder, ServerAddress, StorageAddress, refuse_userinfo
from ospo_core.config.bounds import Decay, Factor, Fraction, Margin, Nucleus, Positive, Quota, Scale, Seed, Speed
from ospo_core.schema import SubCategory

EMBEDDED = "embedded:shapes"
"""Name of the model and of the held-out prompts that are shipped with the package."""


class Section(BaseModel):
    """Base of every section and record: immutable; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Options(Section):
    """Base of every section of a configuration: no option holds an address with credentials."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _holds_no_credentials(cls, value: Any) -> Any:
        """Refuse addresses with credentials in any option, since configurations are stored, shown and logged."""
        refuse_userinfo(value)
        return value


class StorageConfig(Options):
    """Where artifacts are stored, and how they are sharded."""

    root: StorageAddress = Field("runs/shapes", description="Local folder or s3://bucket/prefix.")
    endpoint_url: ServerAddress | None = Field(
        None, description="S3-compatible endpoint; credentials are read from the environment."
    )
    credentials_block: str | None = Field(
        None, description="Prefect Secret block with the credentials as JSON (AWS_ACCESS_KEY_ID and so on)."
    )
    shard_size: Positive = Field(256, description="Prompts per shard, the unit of work, retry and resume.")
    scratch: Folder = Field(".ospo/scratch", description="Local folder for models, exports and training checkpoints.")


class ModelConfig(Options):
    """The unified model that a round starts from."""

    path: str = Field(
        EMBEDDED,
        description="`embedded:shapes`, `current`, a local folder in the format of transformers, or, where there is no "
        "such folder, OWNER/NAME or OWNER/NAME@REVISION of the Hugging Face Hub.",
    )
    family: Literal["shapes", "janus_pro", "emu3"] = "shapes"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16 on GPUs: Janus-Pro was trained in it."
    )
    writer: str | None = Field(
        None,
        min_length=1,
        description="The model that writes prompts, perturbations and questions, as for `path`; none: that of `path`.",
    )
    judge: str | None = Field(
        None,
        min_length=1,
        description="The model that answers questions about a round's own pictures, as for `path`; none: that of "
        "`path`, which draws, is trained, and always gives the log-probabilities. Held-out pictures have "
        "evaluation.judge.",
    )


class EngineConfig(Options):
    """The engine that generates text."""

    kind: Literal["vllm", "transformers", "endpoint"] = "vllm"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: Positive = 256
    max_num_seqs: Positive = Field(256, description="Sequences decoded at the same time.")
    kv_cache_gib: float = Field(
        0.5, gt=0, le=2**16, description="Memory for the key-value cache; on a CPU exactly this much."
    )
    enforce_eager: bool = Field(
        False, description="vLLM on a GPU: no compilation and no CUDA graphs; starts sooner, decodes more slowly."
    )
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1, description="Share of GPU memory that vLLM may use.")
    base_url: ServerAddress | None = Field(None, description="Endpoint engine: address of an OpenAI-compatible server.")
    served_model: str | None = Field(None, description="Endpoint engine: name of the model on that server.")
    structured_output: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Enforce the form of an answer while it is generated, by the family's regular expression. auto: in "
        "vLLM, and on a server that says it is vLLM; on: `structured_outputs` is sent to any server; off: never.",
    )

    min_parsed: Fraction = Field(
        0.5,
        description="Share of a shard's first answers that must have the expected form, or the round stops; 0: never.",
    )

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> EngineConfig:
        if self.kind == "endpoint" and not (self.base_url and self.served_model):
            raise ValueError("engine.kind=endpoint needs engine.base_url and engine.served_model")
        if self.kind == "transformers" and self.structured_output == "on":
            raise ValueError("engine.kind=transformers has no structured output; set engine.structured_output=auto")
        return self


class PromptsConfig(Options):
    """Base prompts (docs/method.md, section 1)."""

    quotas: dict[SubCategory, Quota] = Field(
        default_factory=lambda: dict(_SHAPES_QUOTAS), description="Number of prompts per sub-category."
    )
    temperature: Factor = Field(1.0, description="Paper: 1.0.")
    top_p: Nucleus = 1.0
    examples: Positive = Field(3, description="Few-shot examples per call; paper: 3.")
    examples_complex: Positive = Field(5, description="Few-shot examples per call for complex prompts; paper: 5.")
    redraw_every: Positive = Field(100, description="Calls after which the examples are redrawn; paper: 100.")
    attempts_per_prompt: Positive = Field(8, description="Calls allowed per prompt of the quota.")
    on_unmet_quota: Literal["fail", "warn"] = Field(
        "fail", description="What to do about an unmet quota: fail the round, or warn."
    )
    max_tokens: Positive = 64
    near_duplicate_similarity: Fraction = Field(
        0.9, description="Jaccard similarity of word 3-shingles; 1: exact duplicates only."
    )
    contamination_lists: tuple[str, ...] = Field(
        (), description="Files of evaluation prompts to exclude, one per line."
    )


class PerturbationsConfig(Options):
    """Perturbation and densification (docs/method.md, section 2)."""

    temperature: Factor = Field(1.0, description="Authors' code of paper v2: 1.2; of v3: 1.0.")
    top_p: Nucleus = Field(1.0, description="Authors' code: 0.9.")
    dense_temperature: Factor = Field(1.0, description="The scene shared by both dense prompts is sampled.")
    dense_top_p: Nucleus = Field(1.0, description="Authors' code: 0.9.")
    attempts: Positive = Field(4, description="Calls per variant before it is dropped.")
    densify: bool = Field(True, description="False: render the short prompts (ablation).")
    max_tokens: Positive = 96


class QuestionsConfig(Options):
    """Decomposition of a prompt into yes/no questions (docs/method.md, section 3)."""

    temperature: Factor = Field(0.0, description="Authors' code: 1.2.")
    top_p: Nucleus = Field(1.0, description="Authors' code: 0.5.")
    attempts: Positive = 3
    max_tokens: Positive = 128
    max_questions: Positive = 16


class ImagesConfig(Options):
    """Rendering of the pictures of all prompts and negatives."""

    guidance: Factor = Field(1.0, description="Paper: 5 for Janus-Pro; 1.0 for shapes, see docs/lab-notes.md.")
    temperature: Scale = Field(1.0, description="Paper: 1.0.")
    batch_size: Positive = Field(64, description="Pictures at once: 64 is the fastest on a CPU, see docs/lab-notes.md.")


class ScoresConfig(Options):
    """Scoring of the pictures by the model itself."""

    batch_size: Positive = Field(64, description="Different questions asked, or log-probabilities computed, together.")


class SelectionConfig(Options):
    """Filter and pair rules (docs/method.md, section 3)."""

    rule: Literal["v2", "v3", "best_of_n"] = Field(
        "v2", description="Rule of paper v2 or v3; best_of_n: as in SILMM, without hard negatives."
    )
    sides: Literal["published", "any"] = Field(
        "published",
        description="v2, v3. Code of paper v2 and v3: a chosen image of the base prompt, a rejected one of a perturbed "
        "prompt; any: either prompt may give either image.",
    )
    v2_rejected: Literal["smallest_gap", "same_noise"] = Field(
        "smallest_gap", description="Paper v2: the hardest; same_noise: the other image of the chosen one's variant."
    )
    v2_answer_threshold: float = Field(0.5, ge=-1, le=1, description="Paper v2: every s_k > 0.5; some s_k < -0.5.")
    v3_score_threshold: float = Field(0.6, ge=-1, le=1, description="Paper v3: S >= 0.6.")
    filtering: bool = Field(True, description="False pairs each variant's two images unfiltered (ablation).")


class LoraSettings(Options):
    """LoRA adapter (paper v2: 32 / 64 / 0.05; v3: 64 / 128 / 0.05)."""

    rank: Positive = 32
    alpha: Positive = 64
    dropout: Decay = 0.05


class LossConfig(Options):
    """Weights and temperatures of the loss (docs/method.md, section 4; paper v2)."""

    w_simpo: Factor = 0.8
    w_cond: Factor = 0.5
    w_sft: Factor = 1.5
    beta_simpo: Scale = 3.0
    gamma_simpo: Margin = 1.5
    beta_cond: Scale = 5.0
    gamma_cond: Margin = 2.5
    object_weight: Factor = Field(0.0, description="a in w_t = 1 + a m_t of v3; 0: no object masks.")


class TrainingConfig(Options):
    """Optimisation (docs/method.md, section 4)."""

    loss: LossConfig = LossConfig()
    lora: LoraSettings = LoraSettings()
    learning_rate: Scale = Field(1e-5, description="Paper: 1e-5 constant.")
    further_rate: Scale = Field(
        1.0, description="Factor of learning_rate in rounds that start from a model which an earlier round trained."
    )
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_fraction: Fraction = 0.0
    min_learning_rate: Factor = 1e-7
    steps: Positive = Field(500, description="Optimiser steps; paper v2: 500.")
    imported_pairs: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of pairs that `ospo import-pairs` put into the storage, to train on too; None: none.",
    )
    own_pairs: bool = Field(
        True, description="Train on the pairs of the round; False: on the imported ones alone, and make none."
    )
    max_pairs: Positive | None = Field(None, description="Train on this many pairs, drawn with the seed; None: on all.")
    batch_size: Positive = Field(
        32, description="Pairs per micro-batch; how many share a forward pass follows the device's memory."
    )
    accumulation: Positive = Field(
        4, description="Micro-batches per step; the global batch is batch_size x accumulation."
    )
    caption_dropout: Fraction = Field(
        0.1, description="Share of SFT terms trained without the prompt, to preserve classifier-free guidance."
    )
    max_grad_norm: Scale = 1.0
    adam_betas: tuple[Decay, Decay] = (0.9, 0.95)
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="Compute activations again in the backward pass instead of keeping them: less memory, a third more "
        "work, the same result. auto: where training would otherwise fill the device.",
    )
    checkpoint_every: Positive = 50
    collapse_drop: Scale = Field(
        1.0, gt=0, description="Drop of the chosen log-probability that raises an alarm (nats per token)."
    )
    collapse_patience: Positive = Field(20, description="Consecutive alarms before training stops.")

    @model_validator(mode="after")
    def _has_pairs(self) -> TrainingConfig:
        if not self.own_pairs and self.imported_pairs is None:
            raise ValueError("training.own_pairs=false needs training.imported_pairs")
        return self


class EvaluationConfig(Options):
    """Held-out evaluation of the parent and the child model."""

    prompts: str = Field(
        EMBEDDED, description="`embedded:shapes`, `embedded:everyday`, or a file of prompts (JSON lines or plain text)."
    )
    limit: Positive = Field(300, description="Number of prompts, spread evenly over the sub-categories.")
    samples: Positive = Field(1, description="Pictures per prompt.")
    guidance: Factor = 1.0
    temperature: Scale = 1.0
    batch_size: Positive = Field(64, description="Pictures drawn, or judged, at once.")
    bootstrap: Positive = Field(2000, description="Bootstrap resamples for the confidence interval.")
    seed: Seed = Field(2026, description="The same in every round, so that rounds can be compared.")
    judge: str = Field(
        "start",
        min_length=1,
        description="Who answers the questions about all pictures: `start` (the model that the first round of the "
        "lineage started from), `parent`, a path as for `model.path`, or `endpoint`; `self`: each model its own.",
    )
    judge_url: ServerAddress | None = Field(
        None,
        description="judge=endpoint: address of an OpenAI-compatible server with a vision-language model; its key is "
        "read from the variable OSPO_JUDGE_API_KEY.",
    )
    judge_model: str | None = Field(None, min_length=1, description="judge=endpoint: name of the model on that server.")

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> EvaluationConfig:
        given = [self.judge_url is not None, self.judge_model is not None]
        if self.judge == "endpoint" and not all(given):
            raise ValueError("evaluation.judge=endpoint needs evaluation.judge_url and evaluation.judge_model")
        if self.judge != "endpoint" and any(given):
            raise ValueError("evaluation.judge_url and evaluation.judge_model need evaluation.judge=endpoint")
        return self


class BenchmarkConfig(Options):
    """A public benchmark, or a file of prompts, on which a model alone is measured (`ospo benchmark`)."""

    name: str = Field(
        EMBEDDED,
        min_length=1,
        description="`t2i-compbench`, `geneval`, `dpg`, or prompts of your own as for `evaluation.prompts`.",
    )
    prompts: str | None = Field(
        None, min_length=1, description="Where the benchmark's published prompts are: a folder or a file."
    )
    limit: Positive | None = Field(None, description="Number of prompts, spread over the categories; None: all.")
    samples: Positive | None = Field(None, description="Pictures per prompt; None: as the benchmark's protocol says.")
    guidance: Factor | None = Field(None, description="None: as the protocol says.")
    temperature: Scale | None = Field(None, description="None: as the protocol says.")
    scorer: Literal["auto", "evaluators", "judge"] = Field(
        "auto",
        description="evaluators: the models below; judge: `evaluation.judge` answers yes/no questions about all. auto: "
        "evaluators for a public benchmark and for the embedded world, otherwise the judge.",
    )
    vqa: str = Field(
        "Salesforce/blip-vqa-base",
        min_length=1,
        description="Answers questions: a BLIP for question answering, as a folder, OWNER/NAME, or `embedded:shapes`, "
        "the oracle of the embedded world. T2I-CompBench: BLIP base with CapFilt.",
    )
    detector: str = Field(
        "google/owlv2-base-patch16-ensemble",
        min_length=1,
        description="Finds objects by name: an OWLv2 or Grounding DINO, likewise. T2I-CompBench has UniDet, GenEval "
        "Mask2Former.",
    )
    clip: str = Field(
        "openai/clip-vit-large-patch14",
        min_length=1,
        description="Compares text and picture, names colours: a CLIP, likewise. GenEval: ViT-L/14; T2I-CompBench: "
        "ViT-B/32.",
    )
    depth: str = Field(
        "Intel/dpt-hybrid-midas",
        min_length=1,
        description="Estimates depth for 3D relations, likewise. T2I-CompBench: DPT hybrid (MiDaS).",
    )
    threshold: Fraction = Field(
        0.3, description="Confidence of a detected object; GenEval: 0.3. A choice for OWLv2, not calibrated."
    )
    counting_threshold: Fraction = Field(
        0.3, description="The same where objects are counted; GenEval: 0.9 for Mask2Former, which OWLv2 never reaches."
    )
    batch_size: Positive = Field(16, description="Pictures scored together; it changes no result.")


class PromotionConfig(Options):
    """When the trained model becomes the current model (docs/architecture.md, decision 8)."""

    metric: Literal["auto", "oracle", "vqa", "people", "benchmark"] = Field(
        "auto",
        description="auto: the oracle if there is one, otherwise vqa: the share of pictures of which "
        "`evaluation.judge` answers every question with yes. people: blind answers given in `ospo browse`; a round "
        "waits for them, and running it again decides. benchmark: parent and child are scored as section `benchmark` "
        "says.",
    )
    people_prompts: Positive = Field(
        100, description="metric=people: held-out prompts that people judge before they decide; a choice."
    )
    margin: Factor = Field(0.0, description="The lower end of the 95 % interval of the gain must exceed this.")
    max_category_drop: Factor = Field(0.1, description="Largest drop allowed in any category (point estimate).")


_SHAPES_QUOTAS: dict[SubCategory, int] = {
    SubCategory.COLOR_1: 40,
    SubCategory.SHAPE_1: 20,
    SubCategory.TEXTURE_1: 40,
    SubCategory.COLOR_2: 60,
    SubCategory.SHAPE_2: 40,
    SubCategory.TEXTURE_2: 60,
    SubCategory.SPATIAL_2D: 80,
    SubCategory.SPATIAL_3D: 60,
    SubCategory.NUMERACY_1: 40,
    SubCategory.NUMERACY_2: 60,
    SubCategory.NON_SPATIAL: 80,
    SubCategory.COMPLEX: 80,
}


class SpeedsConfig(Options):
    """Speeds per device that `ospo plan` assumes while the storage has no results; they change no result."""

    tokens: Speed | None = Field(None, description="Text tokens generated per second.")
    images: Speed | None = Field(None, description="Pictures sampled per second.")
    questions: Speed | None = Field(None, description="Questions about pictures answered per second.")
    sequences: Speed | None = Field(None, description="Log-probabilities of a picture per second.")
    pairs: Speed | None = Field(None, description="Pairs trained on per second.")
    picture_bytes: Positive | None = Field(None, description="Size of a stored picture.")


class ExecutionConfig(Options):
    """Where a round runs; it changes no result."""

    runner: Literal["local", "ray"] = Field(
        "local", description="Process shards on this machine, or on the nodes of a Ray cluster."
    )
    processes: Literal["auto"] | Positive = Field(
        "auto",
        description="Local runner: worker processes that share the shards. auto: one per GPU that the round may use, "
        "without GPUs 1; 1: none, all in the process of the round.",
    )
    ray_address: str = Field("auto", description="Ray: `auto`, `host:port`, or `ray://host:10001`.")
    ray_cpus: Positive = Field(1, description="Ray: CPUs per shard; limits how many run on a node at once.")
    preflight: Literal["auto"] | bool = Field(
        "auto", description="Try everything once, as `ospo doctor` does, before a new round; auto: where a GPU is used."
    )
    training_deployment: str | None = Field(
        None,
        description="Deployment (`flow/name`) that trains, e.g. in a GPU work pool; None: train where the flow runs.",
    )


class RoundConfig(Options):
    """The configuration of one round of self-improvement."""

    name: str = Field(
        min_length=1, max_length=200, description="Name of the profile, shown in reports and the Prefect UI."
    )
    seed: Seed = Field(0, description="Seed of the round; the seeds of all items are derived from it.")
    storage: StorageConfig = StorageConfig()
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    prompts: PromptsConfig = PromptsConfig()
    perturbations: PerturbationsConfig = PerturbationsConfig()
    questions: QuestionsConfig = QuestionsConfig()
    images: ImagesConfig = ImagesConfig()
    scores: ScoresConfig = ScoresConfig()
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    speeds: SpeedsConfig = SpeedsConfig()
    execution: ExecutionConfig = ExecutionConfig()
