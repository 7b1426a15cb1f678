"""python -m jaxrank.evaluate: measures of one or more runs, tested query by query."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.data.document_text import DocumentText
from jaxrank.evaluation.options import AssessmentOptions
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
    from jaxrank.data.collection import Collection
    from jaxrank.evaluation.assessment import assess

    texts = None
    if options.collection:
        texts = Collection.open(
            options.collection, document_text=options.document_text, progress=True
        )
    assessment = assess(options, texts=texts, progress=True)
    print(assessment.text())
    for path in assessment.write(options):
        print(f"wrote {path}")


if __name__ == "__main__":
    run(main)
