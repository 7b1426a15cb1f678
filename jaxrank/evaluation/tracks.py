"""Evaluation as each track does it: which measures, and from which grade on a document is relevant.

Numbers of queries are those that the official judgements hold. A query that the run lacks counts 0
in every track, as with `trec_eval -c` and in the MS MARCO leaderboards' own script.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from jaxrank.evaluation.qrels import Qrels

TrackName = Literal[
    "msmarco-document-dev",
    "msmarco-passage-dev",
    "dl19-document",
    "dl20-document",
    "dl19-passage",
    "dl20-passage",
    "beir",
]


@dataclass(frozen=True)
class Track:
    """How a track is evaluated.

    Attributes:
        measures: ir-measures' names; the first is the one that results are compared by.
        num_queries: judged queries of the official set; None where a track has many sets.
        document_ids: pattern of the collection's ids. DL19 has 43 queries for documents and 43 for
            passages, so their number does not tell one from the other.
        drops_the_query_itself: whether a retrieved document with the query's own id is taken out.
        source: where the conventions come from.
    """

    measures: tuple[str, ...]
    num_queries: int | None
    source: str
    document_ids: str = ".*"
    drops_the_query_itself: bool = False


_DOCUMENT_MEASURES = ("nDCG@10", "AP@100", "RR", "R@100", "Judged@10")
# Grade 1 is "related" for passages: on the topic, without the answer, hence not relevant. NIST says
# so beside its judgements (trec.nist.gov/data/deep2019.html) and has trec_eval called with -l 2.
_PASSAGE_MEASURES = (
    "nDCG@10", "AP(rel=2)", "RR(rel=2)@10", "R(rel=2)@100", "R(rel=2)@1000", "Judged@10",
)  # fmt: skip
_DOCUMENT, _PASSAGE = "D[0-9]+", "[0-9]+"
_DL19 = "Craswell et al., Overview of the TREC 2019 deep learning track, arXiv 2003.07820"
_DL20 = "Craswell et al., Overview of the TREC 2020 deep learning track, arXiv 2102.07662"

TRACKS: dict[TrackName, Track] = {
    "msmarco-document-dev": Track(
        measures=("RR@100", "RR@10", "nDCG@10", "R@100"),
        num_queries=5193,
        source="MS MARCO document leaderboard (MRR@100, one relevant document a query)",
        document_ids=_DOCUMENT,
    ),
    "msmarco-passage-dev": Track(
        measures=("RR@10", "nDCG@10", "R@100", "R@1000"),
        num_queries=6980,
        source="MS MARCO passage leaderboard (MRR@10 on dev.small); R@1000 is the first stage's",
        document_ids=_PASSAGE,
    ),
    "dl19-document": Track(
        _DOCUMENT_MEASURES,
        num_queries=43,
        source=f"{_DL19}; AP over 100 documents as in Anserini",
        document_ids=_DOCUMENT,
    ),
    "dl20-document": Track(
        _DOCUMENT_MEASURES,
        num_queries=45,
        source=f"{_DL20}; AP over 100 documents as in Anserini",
        document_ids=_DOCUMENT,
    ),
    "dl19-passage": Track(
        _PASSAGE_MEASURES,
        num_queries=43,
        source=f"{_DL19}; binary measures from grade 2",
        document_ids=_PASSAGE,
    ),
    "dl20-passage": Track(
        _PASSAGE_MEASURES,
        num_queries=54,
        source=f"{_DL20}; binary measures from grade 2",
        document_ids=_PASSAGE,
    ),
    "beir": Track(
        measures=("nDCG@10", "R@100"),
        num_queries=None,
        source="Thakur et al., BEIR, NeurIPS 2021; its code leaves out the query's own document",
        drops_the_query_itself=True,
    ),
}
assert tuple(TRACKS) == get_args(TrackName)


def track_notes(name: TrackName, qrels: Qrels) -> list[str]:
    """What tells these judgements from the official ones: their number, or ids of another kind."""
    track, notes = TRACKS[name], []
    official = track.num_queries
    if official is not None and len(qrels) != official:
        found = f"{len(qrels)} of {official} queries"
        if len(qrels) > official:
            found = f"{len(qrels)} queries instead of {official}"
        notes.append(f"{name}: {found}: not the official set")
    document_id = next(iter(next(iter(qrels.values()))))
    if not re.fullmatch(track.document_ids, document_id):
        notes.append(
            f"{name}: document ids such as {document_id!r}: not the official set; documents have "
            "ids like D123, passages like 123"
        )
    return notes
