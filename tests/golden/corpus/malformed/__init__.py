"""Cases of malformed.json: what readers refuse, with rule and place."""

from __future__ import annotations

from corpus.cases import Malformed
from corpus.malformed.files import add_files
from corpus.malformed.graphs import add_graphs
from corpus.malformed.older import add_older
from corpus.malformed.operations import add_operations
from corpus.malformed.programs import add_programs
from corpus.malformed.records import add_records
from corpus.malformed.samplers import add_samplers
from corpus.malformed.syntax import add_canonical, add_syntax
from corpus.malformed.tokenizers import add_tokenizers
from corpus.malformed.values import add_values


def malformed() -> str:
    """Return what malformed.json holds."""
    corpus = Malformed()
    add_syntax(corpus)
    add_values(corpus)
    add_canonical(corpus)
    add_files(corpus)
    add_graphs(corpus)
    add_programs(corpus)
    add_operations(corpus)
    add_samplers(corpus)
    add_tokenizers(corpus)
    add_records(corpus)
    add_older(corpus)
    return corpus.to_text()
