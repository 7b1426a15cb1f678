"""The dev measure query by query: files in the folder `dev` of a run folder.

One file a milestone, and `first_stage.jsonl` for what is to be beaten; one line a query of the
sample: `{"query_id": "q7", "RR@10": 0.5, "nDCG@10": 0.63}`.
"""

import json
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_jsonl

DEV_FOLDER = "dev"

PerQuery = dict[str, dict[str, float]]
"""Measure -> query id -> value; every measure has the same queries."""


def first_stage_file(folder: Path) -> Path:
    """Where a run folder keeps what the first stage reaches."""
    return folder / DEV_FOLDER / "first_stage.jsonl"


def milestone_file(folder: Path, step: int) -> Path:
    """Where a run folder keeps what the model of a step reaches."""
    return folder / DEV_FOLDER / f"step-{step:06d}.jsonl"


def write_per_query(path: Path, values: PerQuery) -> None:
    """Write the values atomically, queries in their order."""
    with atomic_open(path) as file:
        for query_id in next(iter(values.values())):
            line = {measure: of_queries[query_id] for measure, of_queries in values.items()}
            file.write(json.dumps({"query_id": query_id, **line}) + "\n")


def read_per_query(path: Path) -> PerQuery:
    """Read what `write_per_query` has written.

    Raises:
        InputError: naming file and line: a query without an id or there twice, other measures than
            in the first line, a value that is no number.
    """
    values: PerQuery = {}
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        query_id = line.pop("query_id", None)
        if not isinstance(query_id, str):
            raise InputError(f"{where}: 'query_id': got {query_id!r}; a string is needed")
        values = values or {measure: {} for measure in line}
        if line.keys() != values.keys():
            raise InputError(f"{where}: has {sorted(line)}; the first line has {sorted(values)}")
        for measure, value in line.items():
            if query_id in values[measure]:
                raise InputError(
                    f"{where}: query {query_id!r} was there before; one line is needed"
                )
            if not isinstance(value, float | int):
                raise InputError(f"{where}: {measure!r}: got {value!r}; a number is needed")
            values[measure][query_id] = float(value)
    return values
