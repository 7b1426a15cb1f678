"""What the papers printed: Table 3 of RankMamba, and which sets both papers measure.

RankMamba is arXiv 2403.18276, "State Space Models are Strong Text Rerankers" arXiv 2412.14354.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxrank.evaluation.tracks import TrackName

TABLE_3_SETS = ("dev", "dl19", "dl20")
TRACKS_OF_SETS: dict[str, dict[str, TrackName]] = {
    "msmarco-document": {
        "dev": "msmarco-document-dev",
        "dl19": "dl19-document",
        "dl20": "dl20-document",
    },
    "msmarco-passage": {
        "dev": "msmarco-passage-dev",
        "dl19": "dl19-passage",
        "dl20": "dl20-passage",
    },
}
"""Layout of the official files -> set -> the track by whose rules it is measured. The first measure
of each is the papers'."""

RANKMAMBA_GROUPS = 734_008
"""Training groups that RankMamba reports; two for each judged document would be 18 more."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of Table 3.

    Attributes:
        size: parameters, as Table 1 gives them.
        values: MRR@100 on Dev and nDCG@10 on DL19 and DL20, by set.
        doubt: why the figures cannot be taken as they are; None where they can.
        doubtful_sets: those of the sets that `doubt` is about.
    """

    title: str
    size: str
    values: dict[str, float]
    doubt: str | None = None
    doubtful_sets: tuple[str, ...] = ()


def _row(
    title: str,
    size: str,
    values: Sequence[float],
    doubt: str | None = None,
    doubtful_sets: tuple[str, ...] = (),
) -> PublishedRow:
    return PublishedRow(
        title, size, dict(zip(TABLE_3_SETS, values, strict=True)), doubt, doubtful_sets
    )


BM25 = _row("first stage (the paper's: BM25, k1=4.46, b=0.82)", "-", (0.2767, 0.5233, 0.5061))

# Our name of a model, which is that of its file in configs/rankmamba, in the table's order.
TABLE_3: dict[str, PublishedRow] = {
    "bert-base-uncased": _row("bert-base-uncased", "110M", (0.4126, 0.6575, 0.6147)),
    "roberta-base": _row("roberta-base", "125M", (0.4006, 0.6591, 0.6140)),
    "opt-125m": _row("facebook/opt-125m", "125M", (0.3878, 0.6377, 0.6176)),
    "pythia-160m": _row("EleutherAI/pythia-160m", "120M", (0.3727, 0.6490, 0.6362)),
    "mamba-130m": _row("state-spaces/mamba-130m", "130M", (0.4089, 0.6652, 0.6443)),
    "t5-base": _row("T5-base", "220M", (0.3670, 0.6383, 0.5932)),
    "bert-large-uncased": _row(
        "bert-large-uncased",
        "330M",
        (0.4006, 0.6591, 0.6140),
        doubt="the paper repeats roberta-base's row here, a misprint, so no difference is given",
        doubtful_sets=TABLE_3_SETS,
    ),
    "roberta-large": _row(
        "roberta-large",
        "355M",
        (0.4334, 0.6676, 0.6423),
        doubt="the paper's text gives .4434 for Dev, its table .4334, which is used here",
    ),
    "opt-350m": _row("facebook/opt-350m", "350M", (0.3569, 0.6431, 0.6046)),
    "pythia-410m": _row("EleutherAI/pythia-410m", "340M", (0.3750, 0.6497, 0.6169)),
    "mamba-370m": _row("state-spaces/mamba-370m", "370M", (0.4250, 0.6775, 0.6394)),
    "t5-large": _row("T5-large", "770M", (0.3881, 0.6473, 0.6146)),
    "pythia-1b": _row("EleutherAI/pythia-1b", "860M", (0.3921, 0.6588, 0.6386)),
    "mamba-790m": _row("state-spaces/mamba-790m", "790M", (0.4201, 0.6729, 0.6489)),
}

# The thirteen usual ones, under the names of their archives; the paper's own list is not to hand.
BEIR_SETS = (
    "trec-covid", "nfcorpus", "nq", "hotpotqa", "fiqa", "arguana", "webis-touche2020", "quora",
    "dbpedia-entity", "scidocs", "fever", "climate-fever", "scifact",
)  # fmt: skip
