"""python -m scripts.scale: building, reading and mining collections of up to a million documents.

    python -m scripts.scale --lengths_from MEDQUAD --scratch DIR --json scale.json

For each size it writes msmarco-docs.tsv with queries, judgements and a run; imports it; reads
documents at random, with the files dropped from the page cache and again; mines groups; and deletes
what it wrote. Each step is a process of its own, whose memory is measured. A collection of 100
documents gives the cost of starting. At 1,000,000 documents it needs about 10 GB of disk.

Exit status: 0 all bounds kept, 1 one is not.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jaxrank.files import atomic_open
from jaxrank.version import source_state
from scripts.scale.process import Measured, drop_from_page_cache, measure
from scripts.scale.report import (
    Row,
    checks,
    extrapolate,
    extrapolate_mining,
    paper_lines,
    tables,
)
from scripts.scale.source import (
    RUN_FILE,
    Articles,
    read_articles,
    write_documents,
    write_part_of_run,
    write_training_files,
)

ROOT = Path(__file__).resolve().parents[2]
START_DOCUMENTS = 100
START_QUERIES = 10
GROUPS_A_QUERY = 2


@dataclass(frozen=True)
class Plan:
    """What is measured at each size."""

    groups: tuple[int, ...]
    reads: int
    seed: int


def run_module(name: str, *arguments: str) -> Measured:
    """Run one of the project's commands and measure it."""
    return measure([sys.executable, "-m", name, *arguments], folder=ROOT)


def say(documents: int, step: str, measured: Measured) -> None:
    """Tell how far the measurement has come."""
    now = datetime.now(UTC).strftime("%H:%M:%S")
    print(f"{now} {documents:,} documents, {step}: {measured.seconds:.1f} s", file=sys.stderr)


def measure_size(folder: Path, articles: Articles, documents: int, plan: Plan) -> Row:
    """Everything at one number of documents, in an empty folder."""
    source, collection = folder / "source", folder / "collection"
    source.mkdir()
    write_documents(source, articles, documents=documents, seed=plan.seed)

    def import_with(queries: int) -> Measured:
        write_training_files(source, articles, documents=documents, queries=queries, seed=plan.seed)
        return run_module(
            "jaxrank.import_collection",
            f"--source={source}",
            f"--output={collection}",
            "--layout=msmarco-document",
        )

    built = import_with(START_QUERIES)
    say(documents, "built", built)
    store = collection / "documents"
    sizes = {path.name: path.stat().st_size for path in store.rglob("*") if path.is_file()}
    row: Row = {
        "documents": documents,
        "source_bytes": (source / "msmarco-docs.tsv").stat().st_size,
        "build_s": built.seconds,
        "build_cpu_s": built.cpu_seconds,
        "build_peak_rss": built.peak_rss,
        "build_peak_anonymous": built.peak_anonymous,
        "store_bytes": sum(sizes.values()),
        "index_bytes": sum(size for name, size in sizes.items() if name.endswith(".npy")),
    }
    if documents > START_DOCUMENTS:
        # Other queries and judgements for the same documents, which are not read again.
        say(documents, "queries", import_with(max(plan.groups) // GROUPS_A_QUERY))
        (source / "msmarco-docs.tsv").unlink()
        row["reads"] = measure_reads(collection, documents, plan)
        row["mining"] = [
            measure_mining(source, collection, documents, groups, plan) for groups in plan.groups
        ]
    return row


def measure_reads(collection: Path, documents: int, plan: Plan) -> Row:
    """Random reads, cold and warm."""
    drop_from_page_cache(collection / "documents")
    measured = run_module(
        "scripts.scale.reads",
        f"--collection={collection}",
        f"--documents={documents}",
        f"--reads={plan.reads}",
        f"--seed={plan.seed}",
    )
    say(documents, "read", measured)
    report: Row = json.loads(measured.output.splitlines()[-1])
    return {
        **report,
        "peak_rss": measured.peak_rss,
        "peak_anonymous": measured.peak_anonymous,
    }


def measure_mining(source: Path, collection: Path, documents: int, groups: int, plan: Plan) -> Row:
    """Groups of 1 + 7 from the top 100, two of each judgement."""
    queries = groups // GROUPS_A_QUERY
    is_whole = groups == max(plan.groups)
    run = source / RUN_FILE if is_whole else write_part_of_run(source, "part", queries=queries)
    output = source / "groups.jsonl"
    measured = run_module(
        "jaxrank.mine",
        f"--collection={collection}",
        "--split=train",
        f"--run={run}",
        f"--output={output}",
        "--negatives=7",
        f"--groups_per_positive={GROUPS_A_QUERY}",
        "--last_rank=100",
        f"--seed={plan.seed}",
    )
    say(documents, f"mined {groups:,} groups", measured)
    with open(output, "rb") as file:
        made = sum(1 for _ in file)
    if made != groups:
        raise RuntimeError(f"{made} groups were mined, {groups} expected:\n{measured.output}")
    return {
        "groups": groups,
        "seconds": measured.seconds,
        "cpu_s": measured.cpu_seconds,
        "peak_rss": measured.peak_rss,
        "peak_anonymous": measured.peak_anonymous,
        "output_bytes": output.stat().st_size,
    }


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--documents",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="sizes of the collections that are built",
    )
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[50_000, 200_000], help="even numbers"
    )
    parser.add_argument("--reads", type=int, default=5_000, help="documents read at random")
    parser.add_argument(
        "--lengths_from",
        type=Path,
        default=ROOT / "examples" / "medquad-mini",
        help="collection whose passages, joined into articles, give words and lengths",
    )
    parser.add_argument("--scratch", type=Path, help="folder to work in; the system's by default")
    parser.add_argument("--seed", type=int, default=0, help="of the texts and of what is read")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument(
        "--flat_within", type=float, default=1.2, help="growth of CPU time a document that passes"
    )
    options = parser.parse_args(argv)
    if min(options.documents) <= START_DOCUMENTS or min(options.groups) < GROUPS_A_QUERY:
        parser.error(f"--documents above {START_DOCUMENTS}, --groups of {GROUPS_A_QUERY} or more")
    if any(groups % GROUPS_A_QUERY for groups in options.groups):
        parser.error(f"--groups: multiples of {GROUPS_A_QUERY}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Measure all sizes, print tables, checks and what follows for larger sets."""
    options = parse_options(argv)
    plan = Plan(tuple(sorted(options.groups)), options.reads, options.seed)
    articles = read_articles(options.lengths_from)
    rows = []
    for documents in (START_DOCUMENTS, *sorted(options.documents)):
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch) as folder:
            rows.append(measure_size(Path(folder), articles, documents, plan))
    start, *sizes = rows
    found = checks(start, sizes, flat_within=options.flat_within)
    paper, mining = extrapolate(start, sizes), extrapolate_mining(sizes[-1])
    print("\n".join([*tables(start, sizes), "", *paper_lines(paper, mining), ""]))
    print("\n".join(check.line() for check in found))
    if options.json:
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source_state(),
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
            "articles": {
                "number": len(articles.lengths),
                "mean_words": float(articles.lengths.mean()),
            },
            "start": start,
            "sizes": sizes,
            "on_paper": {"documents": paper, "mining": mining},
            "checks": [{**vars(check), "kept": check.kept} for check in found],
        }
        with atomic_open(options.json) as file:
            file.write(json.dumps(report, indent=1) + "\n")
    return 0 if all(check.kept for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
