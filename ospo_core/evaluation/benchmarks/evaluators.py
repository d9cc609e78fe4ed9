"""Evaluators on stock models of transformers: BLIP, OWLv2 or Grounding DINO, CLIP, DPT.

Only safetensors in the folder are opened, and no code that comes with a model is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    BlipForQuestionAnswering,
    CLIPModel,
)

from ospo_core.errors import ModelError
from ospo_core.evaluation.benchmarks.detections import Box, Depth, Detection, suppressed
from ospo_core.evaluation.benchmarks.gathering import Role
from ospo_core.evaluation.benchmarks.geneval import COLORS
from ospo_core.models.folders import quiet_transformers

_TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
"""GenEval's sentences about a colour; their mean is compared."""

Answer = tuple[float, float]


def load_evaluator(role: Role, folder: Path, device_name: str) -> Any:
    """Load the model that does a job, to the device that `model.device` names.

    Raises:
        ModelError: the folder's files do not fit together.
    """
    kinds = {Role.VQA: BlipAnswers, Role.DETECTOR: Detector, Role.CLIP: Clip, Role.DEPTH: DepthModel}
    device = torch.device("cpu" if device_name == "cpu" or not torch.cuda.is_available() else "cuda")
    try:
        with quiet_transformers():
            return kinds[role](folder, device)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "Give a complete folder: configuration, preprocessor, tokenizer and safetensors"
        raise ModelError(
            f"cannot be loaded: {said}", field=f"benchmark.{role.value}", value=str(folder), remedy=remedy
        ) from error


def _open(cls: Any, folder: Path, device: torch.device) -> Any:
    """Return a network in float32 for inference."""
    loaded = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return loaded.to(device).eval()


def _image(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture)).convert("RGB")


class BlipAnswers:
    """A BLIP for question answering: p(yes) and p(no) are those of the first word of its answer, as in BLIP-VQA."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _open(BlipForQuestionAnswering, folder, device)
        self._device = device
        self._words = self._processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
        if None in self._words or self._processor.tokenizer.unk_token_id in self._words:
            raise ValueError("its tokenizer has no words yes and no")
        self.counts: Counter[str] = Counter()

    @torch.inference_mode()
    def answer(self, pictures: Sequence[bytes], questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
        """Return `(p_yes, p_no)` for each PNG of `pictures` and each of its questions; a picture is encoded once."""
        return [self._about(_image(picture), list(some)) for picture, some in zip(pictures, questions, strict=True)]

    def close(self) -> None:
        """Do nothing: the owner drops it."""

    def _about(self, image: Image.Image, questions: list[str]) -> list[Answer]:
        """Answer questions about one picture, those of one length together: in BLIP padding changes the answers."""
        pixels = self._processor.image_processor(image, return_tensors="pt")["pixel_values"].to(self._device)
        seen = self._network.vision_model(pixel_values=pixels).last_hidden_state
        texts = self._processor.tokenizer(questions, truncation=True)["input_ids"]
        answers: dict[int, Answer] = {}
        for length in {len(text) for text in texts}:
            places = [place for place, text in enumerate(texts) if len(text) == length]
            asked = torch.tensor([texts[place] for place in places], device=self._device)
            answers |= zip(places, self._chances(seen.expand(len(places), -1, -1), asked), strict=True)
        return [answers[place] for place in range(len(questions))]

    def _chances(self, seen: torch.Tensor, asked: torch.Tensor) -> list[Answer]:
        """Return p(yes) and p(no) for questions [B, T] about encoded pictures [B, patches, width]."""
        patches = torch.ones(seen.shape[:-1], dtype=torch.long, device=self._device)
        read = self._network.text_encoder(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            encoder_hidden_states=seen,
            encoder_attention_mask=patches,
        ).last_hidden_state
        first = torch.full((len(asked), 1), self._network.decoder_start_token_id, device=self._device)
        logits = self._network.text_decoder(
            input_ids=first, encoder_hidden_states=read, encoder_attention_mask=torch.ones_like(asked)
        ).logits[:, 0]
        return [(yes, no) for yes, no in logits.float().softmax(dim=-1)[:, self._words].tolist()]


class Detector:
    """A detector of an open vocabulary; several boxes for one object are reduced to one."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _open(AutoModelForZeroShotObjectDetection, folder, device)
        self._device = device
        self._one_by_one = self._network.config.model_type == "grounding-dino"

    @torch.inference_mode()
    def detect(
        self, pictures: Sequence[bytes], labels: Sequence[Sequence[str]], threshold: Sequence[float]
    ) -> list[list[Detection]]:
        """Return the objects of each label in each PNG of `pictures` that reach its threshold, surest first."""
        found = []
        for picture, names, limit in zip(pictures, labels, threshold, strict=True):
            image, queries = _image(picture), list(dict.fromkeys(names))
            groups = [[name] for name in queries] if self._one_by_one else [queries]
            found.append(suppressed([one for group in groups for one in self._found(image, group, limit)]))
        return found

    def _found(self, image: Image.Image, labels: list[str], limit: float) -> list[Detection]:
        """Return the boxes of labels that are asked for together; Grounding DINO is asked for one at a time."""
        size = [(image.height, image.width)]
        if self._one_by_one:
            inputs = self._processor(images=image, text=f"a {labels[0]}.", return_tensors="pt").to(self._device)
            outputs = self._network(**inputs)
            (boxes,) = self._processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], threshold=limit, text_threshold=limit, target_sizes=size
            )
            places = [0] * len(boxes["scores"])
        else:
            texts = [[f"a photo of a {label}" for label in labels]]
            inputs = self._processor(text=texts, images=image, return_tensors="pt").to(self._device)
            outputs = self._network(**inputs)
            (boxes,) = self._processor.post_process_grounded_object_detection(
                outputs, threshold=limit, target_sizes=size
            )
            places = boxes["labels"].tolist()
        columns = zip(places, boxes["scores"].tolist(), boxes["boxes"].tolist(), strict=True)
        return [Detection(labels[place], score, Box(*corners)) for place, score, corners in columns]


class Clip:
    """A CLIP: cosine similarity of text and picture, and the colour of what lies in a box."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _open(CLIPModel, folder, device)
        self._device = device

    @torch.inference_mode()
    def similarity(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        """Return the cosine similarity of each PNG of `pictures` with its text, from -1 to 1."""
        images, words = self._images([_image(picture) for picture in pictures]), self._texts(list(texts))
        return [float(value) for value in (images * words).sum(dim=-1)]

    @torch.inference_mode()
    def colors(self, picture: bytes, found: Sequence[Detection]) -> list[str]:
        """Return the colour of `geneval.COLORS` that fits each object best; its box is cut out, not its outline."""
        image = _image(picture)
        crops = self._images([_crop(image, one.box) for one in found])
        named = {label: self._color_texts(label) for label in dict.fromkeys(one.label for one in found)}
        return [COLORS[int((named[one.label] @ crop).argmax())] for one, crop in zip(found, crops, strict=True)]

    def _color_texts(self, label: str) -> torch.Tensor:
        """Return one direction [colours, width] per colour, the mean over the sentences."""
        means = []
        for color in COLORS:
            mean = self._texts([template.format(color=color, label=label) for template in _TEMPLATES]).mean(dim=0)
            means.append(mean / mean.norm())
        return torch.stack(means)

    def _images(self, images: list[Image.Image]) -> torch.Tensor:
        inputs = self._processor.image_processor(images, return_tensors="pt").to(self._device)
        return _directions(self._network.get_image_features(**inputs))

    def _texts(self, texts: list[str]) -> torch.Tensor:
        inputs = self._processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self._device)
        return _directions(self._network.get_text_features(**inputs))


def _directions(output: Any) -> torch.Tensor:
    """Return features of length 1; transformers 5 returns them as an output, some versions as a tensor."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features / features.norm(dim=-1, keepdim=True)


def _crop(image: Image.Image, box: Box) -> Image.Image:
    """Return what lies in a box, at least one pixel."""
    left, top = min(max(0, int(box.left)), image.width - 1), min(max(0, int(box.top)), image.height - 1)
    right, bottom = (
        max(left + 1, min(image.width, round(box.right))),
        max(top + 1, min(image.height, round(box.bottom))),
    )
    return image.crop((left, top, right, bottom))


class DepthModel:
    """A model of relative depth, larger for nearer, as DPT and MiDaS give it."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        self._network = _open(AutoModelForDepthEstimation, folder, device)
        self._device = device

    @torch.inference_mode()
    def depth(self, pictures: Sequence[bytes]) -> list[Depth]:
        """Return the nearness of every pixel of each PNG of `pictures`, from 0 to 1."""
        return [self._of(_image(picture)) for picture in pictures]

    def _of(self, image: Image.Image) -> Depth:
        inputs = self._processor(images=image, return_tensors="pt").to(self._device)
        predicted = self._network(**inputs).predicted_depth[:, None].float()
        size = (image.height, image.width)
        sized = torch.nn.functional.interpolate(predicted, size=size, mode="bilinear", align_corners=True)[0, 0]
        low, high = sized.min(), sized.max()
        scaled = (sized - low) / (high - low) if high > low else torch.zeros_like(sized)
        return np.asarray(scaled.cpu().numpy(), dtype=np.float64)
