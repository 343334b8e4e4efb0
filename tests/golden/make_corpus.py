"""Write what readers refuse, with rule and place, and what is odd but right."""

from __future__ import annotations

from corpus import Corpus, Malformed
from corpus_accepted import add_accepted
from corpus_document import add_document, add_files
from corpus_graphs import add_graphs, add_records, add_samplers
from corpus_older import add_older
from corpus_programs import add_programs


def malformed() -> str:
    """Return what malformed.json holds."""
    corpus = Malformed()
    add_document(corpus)
    add_files(corpus)
    add_graphs(corpus)
    add_programs(corpus)
    add_samplers(corpus)
    add_records(corpus)
    add_older(corpus)
    return corpus.to_text()


def accepted() -> str:
    """Return what accepted.json holds."""
    corpus = Corpus()
    add_accepted(corpus)
    return corpus.to_text()
