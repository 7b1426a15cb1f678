"""python -m jaxrank.evaluate: measures of one or more runs, tested query by query."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.data.document_text import DocumentText
from jaxrank.errors import InputError
from jaxrank.evaluation.options import AssessmentOptions
from jaxrank.evaluation.query_values import DOCUMENT_LENGTH
from jaxrank.options import parse


@dataclass(frozen=True)
class EvaluateOptions(AssessmentOptions):
    """Compare runs on the same judgements; queries that a run lacks count 0."""

    collection: Path | None = None
    """Collection folder with the texts, for slices by length."""
    document_text: DocumentText | None = None
    """Which fields make a document's text: body, title-body or url-title-body. Null: as the
    collection says."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read judgements and runs, print the tables, write what was asked for."""
    options = parse(EvaluateOptions, "jaxrank.evaluate", argv)
    from jaxrank.data.collection import Collection, check_outside
    from jaxrank.evaluation.assessment import assess

    for option, path in options.outputs.items():
        check_outside(path, options.collection, option=option)
    _check_document_text(options)
    texts = None
    if options.collection:
        texts = Collection.open(
            options.collection, document_text=options.document_text, progress=True
        )
    assessment = assess(options, texts=texts, progress=True)
    print(assessment.text())
    for path in assessment.write(options):
        print(f"wrote {path}")


def _check_document_text(options: EvaluateOptions) -> None:
    """Refuse a choice of fields that nothing would be read with."""
    reads = any(what.startswith(DOCUMENT_LENGTH) for what in options.slice_by)
    if options.document_text is not None and (options.collection is None or not reads):
        raise InputError(
            f"document_text: got {options.document_text}; only --slice_by {DOCUMENT_LENGTH} with "
            "--collection reads documents, which is needed too"
        )


if __name__ == "__main__":
    run(main)
