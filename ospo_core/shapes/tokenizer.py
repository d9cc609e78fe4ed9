"""The tokenizer of the embedded model: one token a word, one a mark, and the image tags of Janus."""

from __future__ import annotations

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ospo_core.prompts.families import family
from ospo_core.prompts.shapes_family import NO_RELATION, PHRASES
from ospo_core.schema import PerturbationKind
from ospo_core.shapes.grammar import NUMBERS, RELATIONS, SIDES, cell_name
from ospo_core.shapes.world import COLORS, CONTAINERS, GRID, SHAPES, TEXTURES

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
BEGIN_IMAGE, END_IMAGE, IMAGE = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
SPECIAL = (PAD, UNK, BOS, EOS, USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, IMAGE)

DESCRIBE, DESCRIBE_CELLS = "describe the picture .", "describe the picture with places ."
"""Instructions for captioning, which only pretraining uses."""


def vocabulary() -> list[str]:
    """Return every word and mark that the formats of the shapes family and its world can produce."""
    shapes = family("shapes")
    texts = [
        *COLORS,
        *SHAPES,
        *(f"{shape}s" for shape in SHAPES),
        *CONTAINERS,
        *TEXTURES,
        *NUMBERS,
        *RELATIONS,
        *SIDES,
        *(cell_name((row, column)) for row in range(GRID) for column in range(GRID)),
        *PHRASES.values(),
        *(kind.value for kind in PerturbationKind),
        *shapes.yes,
        *shapes.no,
        NO_RELATION,
        DESCRIBE,
        DESCRIBE_CELLS,
        "a an and at the is are there object objects only picture image of ? . ; , | :",
        shapes.perturb(PerturbationKind.REPLACE, "", next(iter(PHRASES))),
        shapes.densify("", ""),
        shapes.decompose(""),
        shapes.write_prompt(next(iter(PHRASES)), []),
    ]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the number of a token that the vocabulary holds."""
    return int(tokenizer.get_vocab()[token])


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; it puts the begin-of-sequence token in front of every text."""
    words = [*SPECIAL, *vocabulary()]
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNK))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos_id = words.index(BOS)
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
