"""python -m jaxrank.bench: time and memory of operations, layers, training steps and scoring.

The table's columns: `ms` is the median of the measurements with the lowest and the highest; `floor`
the least time that this device needs for the work and `of it` its share of the median (of training
and scoring: the model FLOPs utilisation), both - where the device's speed is not known; `peak
MiB` the memory at most, as d the device's allocator, c the compiler or t PyTorch's allocator says;
`speed of ours` the rival's time over ours, so ours is faster above 1.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from jaxrank.command_line import run


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what was asked for, print the table, write what was asked for.

    The status is 1 if a side failed in another way than for want of memory.
    """
    # Beside PyTorch in one process: JAX may not take most of a GPU's memory beforehand.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from jaxrank.benchmarking.options import parse_options
    from jaxrank.benchmarking.report import LEGEND, table
    from jaxrank.benchmarking.session import has_failed, make_report, write_report

    options = parse_options(argv)
    report = make_report(
        options,
        make_texts=_make_texts,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"{table(report.rows)}\n\n{LEGEND}")
    for path in write_report(report, options):
        print(f"wrote {path}")
    if has_failed(report):
        raise SystemExit(1)


def _make_texts(options: Namespace) -> Any:
    """Pairs of a collection, and a model folder that scores them."""
    from jaxrank.benchmarking.options import choice_of
    from jaxrank.benchmarking.texts import draw_pairs, predicting, texts_case
    from jaxrank.data.collection import Collection
    from jaxrank.reranker import Reranker

    dtype = choice_of(options).dtype
    collection = Collection.open(options.collection)
    pairs = draw_pairs(list(collection.queries.values()), collection.documents, options.pairs)
    model = Reranker.from_pretrained(options.model, dtype=dtype)
    return texts_case(options.model, pairs, dtype), predicting(model.predict)


if __name__ == "__main__":
    run(main)
