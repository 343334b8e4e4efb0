"""Cases of accepted.json: what is odd but right, and what it is equal to."""

from __future__ import annotations

from corpus.accepted.graphs import add_graphs
from corpus.accepted.numbers import add_numbers
from corpus.accepted.older import add_older
from corpus.accepted.older_programs import add_older_programs
from corpus.accepted.programs import add_programs
from corpus.accepted.shapes import add_shapes
from corpus.accepted.sizes import add_sizes
from corpus.accepted.spelling import add_spelling
from corpus.accepted.texts import add_texts
from corpus.accepted.tokenizers import add_tokenizers
from corpus.cases import Accepted


def accepted() -> str:
    """Return what accepted.json holds."""
    corpus = Accepted()
    add_spelling(corpus)
    add_numbers(corpus)
    add_texts(corpus)
    add_sizes(corpus)
    add_graphs(corpus)
    add_tokenizers(corpus)
    add_shapes(corpus)
    add_programs(corpus)
    add_older(corpus)
    add_older_programs(corpus)
    return corpus.to_text()
