"""What `jaxrank.encode_documents` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrank.data.document_text import DocumentText

Action = Literal["encode", "verify", "describe", "delete", "mend"]
DTypeOption = Literal["float32", "bfloat16", "bf16", "int8"]


@dataclass(frozen=True)
class EncodeOptions:
    """Read documents once and keep the states that a model is in after them.

    `jaxrank.rerank --document_states` then reads the queries alone. A call that was interrupted, or
    one with more documents, goes on with what is there.
    """

    output: Path
    """Folder of the states; a new one, or one that is gone on with."""
    action: Action = "encode"
    """encode; verify compares every byte with its SHA-256; describe says what is there; delete
    takes the documents of `documents` away; mend takes away all that is damaged and all of missing
    or cut files, to be encoded again. It may stand first, without --action."""
    model: str | None = None
    """Model folder, or hub id. Needed to encode."""
    collection: Path | None = None
    """Collection folder with the documents. Needed to encode."""
    document_text: DocumentText | None = None
    """Which fields of a document are its text; null takes the collection's own choice."""
    documents: Path | None = None
    """File with a document id a line, plain or gzip: only these. Null: all of the collection, or
    those of `runs`."""
    runs: tuple[Path, ...] = ()
    """TREC runs: only the documents that one of them has as a candidate."""
    depth: int | None = None
    """Candidates taken per query of each run, the best of it; null takes all."""
    dtype: DTypeOption = "bfloat16"
    """What states are kept in: float32 is exact, bfloat16 (bf16) takes half of it, int8 about a
    third for Mamba and a quarter for Mamba-2. A folder has one of them; in Python the default is
    float32."""
    max_length: int | None = None
    """Longest pair in tokens, which sets what of a document is read; null takes what the model was
    saved with. Reranking needs the same."""
    batch_size: int = 32
    """Documents computed at once; changes speed and memory, and states by rounding, so that a call
    that goes on equals an undisturbed one bit for bit with the same only."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; float32 is exact, bfloat16 faster on GPUs."""

    @property
    def kept_dtype(self) -> Literal["float32", "bfloat16", "int8"]:
        """`dtype` by its one name."""
        return "bfloat16" if self.dtype == "bf16" else self.dtype
