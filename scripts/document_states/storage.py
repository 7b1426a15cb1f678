r"""What document states take on disk, and how fast they are made and read.

    python -m scripts.document_states.storage --scratch /tmp/states --json storage.json

Sizes of published models follow from the shapes of their states; those of small ones are also
measured, on a store that a model at a random start wrote. Reading takes all documents of that store
one batch of candidates after another: from memory, from files that the page cache holds, and from
files dropped from it, with verification and without.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from jaxrank.command_line import run
from jaxrank.files import check_target
from jaxrank.ranking.document_states.formats import StateDType, stored_bytes
from scripts.document_states.random_models import RandomModel, specs_of
from scripts.document_states.reading import build, reading_rates
from scripts.document_states.report import markdown_table, write_report

PRESETS = (
    "mamba-130m", "mamba-370m", "mamba-790m", "mamba-1.4b", "mamba2-130m", "mamba2-370m",
    "mamba2-780m", "mamba2-1.3b", "opt-125m", "pythia-160m", "llama-3.2-1b",
)  # fmt: skip
ON_DISK = ("mamba-130m", "mamba2-130m")
DTYPES: tuple[StateDType, ...] = get_args(StateDType)


def main() -> int:
    """Compute, measure, print tables, write JSON."""
    options = _parse()
    check_target(options.json)
    sizes = {preset: sizes_of(preset, options.length) for preset in PRESETS}
    print(f"{size_table(sizes, options.length)}\n", flush=True)
    stores: list[dict[str, Any]] = []
    for preset in options.on_disk:
        model = RandomModel(preset, options.length, is_toy=options.toy)
        for dtype in options.dtypes:
            with tempfile.TemporaryDirectory(prefix="storage-", dir=options.scratch) as folder:
                built = build(model, dtype, options.documents, options.batch_size, Path(folder))
                rates = reading_rates(Path(folder) / "store", options.candidates, options.repeats)
            stores.append({"preset": preset, "dtype": dtype, **built, "reading": rates})
            print(f"{preset} {dtype}: {built['documents_per_s']:.2f} documents/s", file=sys.stderr)
    print(f"{store_table(stores)}\n\n{reading_table(stores)}")
    write_report(options.json, options, {"bytes_a_document": sizes, "stores": stores})
    return 0


def sizes_of(preset: str, length: int) -> dict[str, int]:
    """Bytes of a document's state by dtype."""
    return {dtype: stored_bytes(specs_of(preset), dtype, length) for dtype in DTYPES}


def size_table(sizes: dict[str, dict[str, int]], length: int) -> str:
    """Megabytes by model and dtype."""
    rows = [
        [preset, *(f"{size / 1e6:,.2f}" for size in row.values())] for preset, row in sizes.items()
    ]
    return markdown_table([f"MB a document of {length} tokens", *DTYPES], rows)


def store_table(stores: Sequence[dict[str, Any]]) -> str:
    """What the stores take beyond the states, and how fast they were made."""
    header = ("store", "documents", "bytes a document, computed", "on disk", "documents/s read",
              "tokens/s", "written, MB/s")  # fmt: skip
    rows = [
        (
            f"{one['preset']}, {one['dtype']}", f"{one['documents']}",
            f"{one['state_bytes']:,}", f"{one['disk_bytes']:,.0f}",
            f"{one['documents_per_s']:.2f}", f"{one['tokens_per_s']:,.0f}",
            f"{one['written_mb_per_s']:,.0f}",
        )
        for one in stores
    ]  # fmt: skip
    return markdown_table(header, rows)


def reading_table(stores: Sequence[dict[str, Any]]) -> str:
    """MB/s and documents/s by where states are."""
    places = list(stores[0]["reading"]) if stores else []
    rows = [
        [
            f"{one['preset']}, {one['dtype']}",
            *(
                f"{rate['mb_per_s']:,.0f} MB/s, {rate['documents_per_s']:,.0f}/s"
                for rate in one["reading"].values()
            ),
        ]
        for one in stores
    ]
    return markdown_table(["gathered from", *places], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for stores, on disk")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512, help="tokens of a document")
    parser.add_argument("--documents", type=int, default=48, help="of a store that is built")
    parser.add_argument("--on_disk", nargs="*", choices=PRESETS, default=list(ON_DISK))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--candidates", type=int, default=24, help="gathered at once")
    parser.add_argument("--batch_size", type=int, default=16, help="documents read at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="tiny models in place of those on disk")
    return parser.parse_args()


if __name__ == "__main__":
    run(lambda: sys.exit(main()))
