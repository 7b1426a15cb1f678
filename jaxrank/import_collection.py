"""python -m jaxrank.import_collection: official files, as they are, into a collection folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrank.command_line import run
from jaxrank.data.document_text import DocumentText
from jaxrank.data.importing.layouts.collection_source import LayoutOption
from jaxrank.options import parse


@dataclass(frozen=True)
class ImportOptions:
    """Turn the files of MS MARCO, BEIR or ir_datasets into a collection folder, once.

    A call that was interrupted goes on where it was; one that was complete does nothing.
    """

    source: str
    """Folder with the official files, each plain or .gz; or ir_datasets:ID, also several ids with
    commas between."""
    output: Path
    """Collection folder to write: documents/, queries.jsonl, qrels.SPLIT.txt, collection.json."""
    layout: LayoutOption = "auto"
    """Which files to look for; auto goes by the one that holds the documents."""
    document_text: DocumentText | None = None
    """Which fields become a document's text: body, title-body or url-title-body. Null: the layout's
    choice, url-title-body for MS MARCO documents, body for passages, title-body for BEIR."""
    malformed: Literal["refuse", "skip"] = "refuse"
    """What becomes of a document's line that cannot be read: an error that names it, or it is left
    out and counted."""
    missing_documents: Literal["count", "refuse"] = "count"
    """What becomes of judgements of documents that are not there: kept and counted, as evaluation
    wants them, or an error. Either names the first."""
    verify: bool = False
    """Compare every byte of the documents with its SHA-256, those of an earlier call too, at about
    a second for each GB. Without it only their files' sizes are looked at."""


def main(argv: Sequence[str] | None = None) -> None:
    """Find the files, import them, and say what is there."""
    options = parse(ImportOptions, "jaxrank.import_collection", argv)
    from jaxrank.data.importing.importer import import_collection
    from jaxrank.data.importing.layouts.detect import open_source

    imported = import_collection(
        open_source(options.source, options.layout),
        options.output,
        document_text=options.document_text,
        malformed=options.malformed,
        missing_documents=options.missing_documents,
        verify=options.verify,
        progress=True,
    )
    print("\n".join(imported.report.lines()))
    print(
        {
            "everything": f"wrote {options.output}",
            "document_text": f"{options.output}: was complete; only the text's choice has changed",
            "nothing": f"{options.output}: was complete; nothing to do",
        }[imported.done]
    )
    if options.verify:
        print(f"{options.output}: every file is as it was written (SHA-256)")


if __name__ == "__main__":
    run(main)
