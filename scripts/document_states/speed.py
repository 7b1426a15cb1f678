r"""How long a query's candidates take from document states, beside full passes: ratios of one run.

    python -m scripts.document_states.speed --scratch /tmp/states \
      --json benchmarks/results/document_states.json --plot benchmarks/results/document_states.png

Models of published shapes at a random start, in float32. At each length of documents all ways to
score take turns: full passes, and the query's tokens alone from states in memory, in files that the
page cache holds, and in files that were dropped from it before each repetition (opening the store
is not timed; verification is on); of these the table says what share of the states' bytes then came
from the device, as the kernel counts it for this process. A full pass is given pairs of exactly so
many tokens, in whole batches and without padding or tokenising, at long documents on fewer
candidates, from which its time is scaled; scoring from states includes tokenising the query and
finding the states.

Exit status: 0 all promises kept, 1 one is not.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.files import check_target
from scripts.document_states.report import Promise, all_kept, write_report
from scripts.document_states.speed_plot import plot_rows
from scripts.document_states.speed_rows import (
    SPEEDUP_LENGTH,
    Line,
    Row,
    as_values,
    flatness,
    make_promises,
    notes,
    ratio_table,
    time_table,
)
from scripts.document_states.speed_sides import Subject, Timed
from scripts.document_states.turns import Timing, take_turns

PRESET = "mamba-130m"
"""That the promises are about."""
CACHES = ("pythia-160m", "opt-125m")
RIVALS = ("minilm-l6", "bert-base", "mamba2-130m", *CACHES)


def main() -> int:
    """Measure, print tables, draw, write JSON."""
    options = _parse()
    for path in (options.json, options.plot):
        if path is not None:
            check_target(path)
    subjects = make_subjects(options)
    rows: list[Row] = []
    for length in options.lengths:
        rows += measure(subjects, length, options)
    flat = measure_flatness(subjects[0], options)
    base = Line(PRESET, "memory")
    print(f"\n{time_table(rows, options.candidates)}\n\n{ratio_table(rows, base)}\n")
    print("\n".join(notes(rows, options.candidates)), "\n")
    promises: list[Promise] = [*make_promises(rows, PRESET), *flatness(flat)]
    kept = all_kept(promises)
    if options.plot is not None:
        plot_rows(rows, options.plot, options.candidates)
    if options.json is not None:
        results = {"rows": [as_values(row) for row in rows], "flatness_ms": flat}
        write_report(options.json, options, results, promises)
    return 0 if kept or options.toy else 1


def make_subjects(options: argparse.Namespace) -> list[Subject]:
    """The models: that of the promises with states everywhere, the others as rivals."""
    dtypes = tuple(options.dtypes)
    first = Subject(PRESET, options, dtypes=dtypes, disk_dtypes=dtypes, whole_at=options.whole_at)
    has_states = ("mamba2-130m", *CACHES)
    return [
        first,
        *(
            Subject(preset, options, dtypes=dtypes if preset in has_states else ())
            for preset in options.rivals
        ),
    ]


def measure(subjects: Sequence[Subject], length: int, options: argparse.Namespace) -> list[Row]:
    """All ways to score at one length, in turn."""
    with tempfile.TemporaryDirectory(prefix="speed-", dir=options.scratch) as folder:
        timed = [one for subject in subjects for one in subject.sides(length, Path(folder))]
        print(f"{length} tokens: {len(timed)} ways, {options.repeats} rounds", file=sys.stderr)
        timings = take_turns([one.side for one in timed], repeats=options.repeats)
        rows = [as_row(one, length, timings[one.side.name], options) for one in timed]
        del timed
        gc.collect()  # mapped files, and gigabytes of states
    for row in rows:
        share = "" if row.from_device is None else f", {row.from_device:.0%} from the device"
        print(f"  {row.line}: {row.ms:,.1f} ms, ±{row.spread / 2:.1%}{share}", file=sys.stderr)
    return rows


def as_row(one: Timed, length: int, timing: Timing, options: argparse.Namespace) -> Row:
    """The time of a query's candidates, scaled from those that were measured."""
    scale = options.candidates / one.measured
    return Row(
        line=one.line,
        length=length,
        read=one.read,
        measured=one.measured,
        ms=1e3 * scale * timing.median_s,
        spread=timing.spread,
        seconds=timing.seconds,
        note=one.note,
        from_device=one.share_from_device(),
    )


def measure_flatness(subject: Subject, options: argparse.Namespace) -> dict[int, float]:
    """Milliseconds from float32 states in memory by length, all long ones in turn."""
    lengths = [length for length in options.lengths if length >= SPEEDUP_LENGTH]
    sides = [
        replace(subject.states_in_memory(length, "float32").side, name=str(length))
        for length in lengths
    ]
    timings = take_turns(sides, repeats=2 * options.repeats)
    return {length: 1e3 * timings[str(length)].median_s for length in lengths}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for stores, on disk")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG")
    parser.add_argument(
        "--lengths", type=int, nargs="+", help="tokens of documents",
        default=[32, 64, 128, 256, 512, 1024, 2048, 4096],
    )  # fmt: skip
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16", "int8"],
        default=["float32", "bfloat16"], help="of states",
    )  # fmt: skip
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--query_tokens", type=int, default=15, help="behind a document")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--batch_size", type=int, default=10,
        help="pairs of a full pass at once; of 5, 10, 25 and 50, the fastest on two cores",
    )  # fmt: skip
    parser.add_argument(
        "--full_tokens", type=int, default=16_384,
        help="most tokens of a timed full pass; its time is scaled from these",
    )  # fmt: skip
    parser.add_argument(
        "--whole_at", type=int, default=SPEEDUP_LENGTH,
        help=f"length at which {PRESET}'s full passes read all candidates all the same",
    )  # fmt: skip
    parser.add_argument("--memory_gib", type=float, default=12.0, help="of one side's copies")
    parser.add_argument("--toy", action="store_true", help="tiny models; no promise is checked")
    return parser.parse_args()


if __name__ == "__main__":
    run(lambda: sys.exit(main()))
