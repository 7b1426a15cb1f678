"""Collections of a few documents, on disk as users have them."""

import json
from pathlib import Path

from jaxrank.data.collection import Collection


def write_collection(
    folder: Path, documents: dict[str, str], queries: dict[str, str] | None = None
) -> Collection:
    """A collection folder of documents and queries, with each query's first judgement."""
    queries = queries or {"q": "asthma"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    first = next(iter(documents))
    (folder / "qrels.test.txt").write_text("".join(f"{query} 0 {first} 1\n" for query in queries))
    return Collection.open(folder)
