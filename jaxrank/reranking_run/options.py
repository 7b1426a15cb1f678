"""What `jaxrank.rerank` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrank.data.document_text import DocumentText
from jaxrank.ranking.policies import Policy


@dataclass(frozen=True)
class RerankOptions:
    """Score the candidates of a run with a reranker and write the run of these scores.

    With `groups` in place of `run`: score the documents of training groups and write these groups
    with the scores, for a model that is to learn from this one.
    """

    model: str
    """Model folder, or hub id."""
    output: Path
    """File to write: a TREC run, or training groups."""
    collection: Path | None = None
    """Collection folder with documents and queries. Null: the groups hold the texts."""
    document_text: DocumentText | None = None
    """Which fields of a document are its text; null takes the collection's own choice."""
    run: Path | None = None
    """TREC run with the candidates of each query."""
    groups: Path | None = None
    """Training groups to score, by ids or in FlagEmbedding's or Tevatron's layout; instead of
    `run`. The scores are the model's own, not cut to a range."""
    depth: int | None = None
    """Candidates scored per query, the best of the run; the others are left out. null takes all."""
    document_states: Path | None = None
    """Folder with states of documents, made with this model by `jaxrank.encode_documents`: a model
    reads only queries. Documents that are not in it are read for this run, and counted; their texts
    must be those of `collection`, which is needed for all candidates."""
    verify_states: bool = True
    """Compare every state that is used with its checksum; false trusts them. All are compared by
    `jaxrank.encode_documents verify`."""
    states_memory_gb: float = 2.0
    """Memory, in GB, for states of documents that are not in the folder, so that one that several
    queries share is read once; beside it, those of the candidates that are scored together."""
    max_length: int | None = None
    """Longest pair in tokens, up to the model's positions; null takes what the model was saved
    with. State-space models and T5 have no limit."""
    long_documents: Policy = "firstp"
    """Documents beyond max_length: firstp cuts them; maxp takes the best of the windows over the
    document, sump their summed probability; longp reads up to max_length at once, which must be
    long, e.g. 1536."""
    window: int | None = None
    """Tokens of a window of maxp and sump; null takes what the template gives a document."""
    stride: int | None = None
    """Tokens from the beginning of a window to that of the next one; null takes half a window."""
    window_title: bool = False
    """Put the document's title (what stands in front of its body) in front of each window."""
    batch_size: int | None = None
    """Pairs computed at once, or documents where states are made, or candidates that are scored
    from states; changes speed and memory, not scores. Null takes 32, and 100 such candidates."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; float32 is exact, bfloat16 faster on GPUs."""
    tag: str = "jaxrank"
    """Name of the run, its last column."""

    @property
    def texts_at_once(self) -> int:
        """`batch_size`, or what null means for pairs and documents."""
        return 32 if self.batch_size is None else self.batch_size
