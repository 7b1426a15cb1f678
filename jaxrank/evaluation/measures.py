"""Effectiveness of a run, by ir-measures, with one tie rule for every measure.

ir-measures hands each measure to the tool that defines it, and those break ties differently: on
one run with ties RR was 0.5 and RR@10 was 1.0. So the run is put in order first, by
(-score, document id), and its scores are replaced by falling whole numbers: nothing is tied.

Names follow ir-measures: `RR@10`, `nDCG@10`, `R@100`, `AP(rel=2)`. nDCG's gain is linear, as in
trec_eval. A binary measure counts grades >= 1 as relevant; TREC DL passage needs `(rel=2)`.
"""

import ast
import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from subprocess import CalledProcessError
from typing import Any

import ir_measures

from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run, ranking

_MEASURE = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?(?:@(?P<cutoff>[0-9.]+))?")
# trec_eval's code turns a cutoff that its integers cannot hold into another one.
_LARGEST_CUTOFF = 10**9
_CUTOFF_NEEDED = f"the cutoff must be a whole number from 1 to {_LARGEST_CUTOFF:,}"
# Queries evaluated at a time: few enough for 1,000 documents a query, many enough for speed.
_CHUNK_QUERIES = 512
# Blanks and commas between measures, but not those inside the brackets of one.
_SEPARATOR = re.compile(r"[\s,]+(?![^()]*\))")

Results = Run | Iterable[tuple[str, dict[str, float]]]
"""A run, or its queries one by one, as `iter_run` yields them."""


class NoSharedQueryError(InputError):
    """A run and judgements of different queries; the message names neither's file."""


@dataclass(frozen=True)
class Evaluation:
    """Values of one run. Queries are those of the qrels, in their order.

    Attributes:
        per_query: measure -> query id -> value.
        means: measure -> mean over all queries of the qrels (ir-measures' counts, such as NumRet,
            are summed).
        missing_queries: queries of the qrels that the run lacks; each counts 0.
        unjudged_queries: queries of the run that the qrels lack; they are left out.
        depth: documents that the longest of the run's judged queries has.
        is_cut_off: whether all of them, two at least, have as many, as where a run was cut off.
    """

    per_query: dict[str, dict[str, float]]
    means: dict[str, float]
    missing_queries: tuple[str, ...]
    unjudged_queries: tuple[str, ...]
    depth: int
    is_cut_off: bool

    def restricted_to(self, queries: Collection[str]) -> "Evaluation":
        """The evaluation over some of the queries, e.g. those of a slice."""
        wanted = set(queries)
        kept = [query for query in next(iter(self.per_query.values())) if query in wanted]
        per_query = {
            name: {query: values[query] for query in kept}
            for name, values in self.per_query.items()
        }
        missing = set(self.missing_queries)
        return Evaluation(
            per_query=per_query,
            means={str(m): _aggregate(m, per_query[str(m)]) for m in parse_measures([*per_query])},
            missing_queries=tuple(query for query in kept if query in missing),
            unjudged_queries=(),
            depth=self.depth,
            is_cut_off=self.is_cut_off,
        )


def split_measures(text: str) -> list[str]:
    """The single names in "RR@10 nDCG@10" or "RR@10, AP(rel=2)"."""
    return [name for name in _SEPARATOR.split(text.strip()) if name]


def evaluate_run(qrels: Qrels, run: Results, measures: Sequence[str]) -> Evaluation:
    """Evaluate `run`; a query that it lacks counts 0, as with `trec_eval -c`.

    So does a query without relevant documents: trec_eval's code gives it 0 and counts it.

    Args:
        qrels: the judgements, whose queries are those that count.
        run: what is given query by query is read some hundred queries at a time.
        measures: names as in "RR@10".

    Raises:
        InputError: an unknown measure, or reading the run's file.
        NoSharedQueryError: the run shares no query with the qrels.
    """
    parsed = parse_measures(measures)
    per_query = {str(measure): dict.fromkeys(qrels, 0.0) for measure in parsed}
    judged: set[str] = set()
    unjudged: list[str] = []
    depths: Counter[int] = Counter()
    for chunk in _chunks(run.items() if isinstance(run, dict) else run):
        unjudged += [query for query in chunk if query not in qrels]
        untied = {query: _untied(scores) for query, scores in chunk.items() if query in qrels}
        judgements = {query: _computable(qrels[query]) for query in untied}
        for value in _calculate(parsed, judgements, untied):
            per_query[str(value.measure)][value.query_id] = float(value.value)
        judged.update(untied)
        depths.update(map(len, untied.values()))
    if not judged:
        raise NoSharedQueryError(
            f"the run and the qrels share no query (run: {_some(unjudged)}; "
            f"qrels: {_some(qrels)}); are they of the same split?"
        )
    missing = tuple(query for query in qrels if query not in judged)
    for measure in parsed:
        if measure.NAME in ("NumQ", "NumRel"):  # of the qrels alone: a missing query has them too
            for query in missing:
                relevant = sum(grade >= 1 for grade in qrels[query].values())
                per_query[str(measure)][query] = 1.0 if measure.NAME == "NumQ" else float(relevant)
    return Evaluation(
        per_query=per_query,
        means={str(measure): _aggregate(measure, per_query[str(measure)]) for measure in parsed},
        missing_queries=missing,
        unjudged_queries=tuple(unjudged),
        depth=max(depths),
        is_cut_off=len(depths) == 1 and len(judged) > 1,
    )


def parse_measures(names: Sequence[str]) -> list[ir_measures.Measure]:
    """Measures by name, each once.

    Raises:
        InputError: no name at all, an unknown one (the nearest is named), or unfit parameters.
    """
    if not names:
        raise InputError("measures: none given; name some, e.g. 'RR@10 nDCG@10'")
    return list(dict.fromkeys(_parse_measure(name) for name in names))


def _parse_measure(text: str) -> ir_measures.Measure:
    # ir_measures.parse_measure uses parts of `ast` that Python 3.12 deprecates and 3.14 lacks.
    match = _MEASURE.fullmatch(text)
    if match is None:
        is_cutoff = _MEASURE.fullmatch(text.rpartition("@")[0]) and text.count("@") == 1
        fault = _CUTOFF_NEEDED if is_cutoff else "not of the form Name(key=value)@cutoff"
        raise InputError(f"measure {text!r}: {fault}")
    known = ir_measures.measures.registry
    if match["name"] not in known:
        raise InputError(f"measure {text!r}: unknown; {_advice(match)}")
    measure = known[match["name"]]
    try:
        keywords = _parse_arguments(match["arguments"] or "")
        if match["cutoff"]:
            keywords[measure.AT_PARAM] = ast.literal_eval(match["cutoff"])
        given = keywords.get("cutoff", 1)
        if not isinstance(given, int) or not 1 <= given <= _LARGEST_CUTOFF:
            raise ValueError(_CUTOFF_NEEDED)
        if keywords.get("rel", 1) < 1:  # trec_eval's code refuses it as late as in the computation
            raise ValueError("rel, the lowest grade that is relevant, must be 1 or more")
        measure = measure(**keywords)
        measure.validate_params()
    except (AssertionError, SyntaxError, TypeError, ValueError) as error:
        detail = "a cutoff such as @10 may be needed" if "object at" in str(error) else error
        raise InputError(f"measure {text!r}: {detail}") from None
    if not ir_measures.DefaultPipeline.supports(measure):
        raise InputError(f"measure {text!r}: none of the installed packages computes it")
    return measure


def _parse_arguments(text: str) -> dict[str, Any]:
    call = ast.parse(f"measure({text})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError("parameters are written key=value")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _advice(unknown: re.Match[str]) -> str:
    # Aliases such as NDCG come first, so that the proper name wins where both differ in case only.
    known = sorted(ir_measures.measures.registry.items(), key=lambda item: item[0] == item[1].NAME)
    by_lower_case = {name.lower(): measure.NAME for name, measure in known}
    name = unknown["name"]
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if nearest:
        rest = unknown.string[len(name) :]  # parameters and cutoff, as they were given
        return f"did you mean {by_lower_case[nearest[0]] + rest!r}?"
    return "known are, among others, RR, nDCG, AP, P, R and Success"


def relevance_level(measure: str) -> int:
    """The lowest grade that a measure, by its name, takes as relevant."""
    parsed = _parse_measure(measure)
    level = parsed["rel"] if "rel" in parsed.SUPPORTED_PARAMS else 1
    return level if isinstance(level, int) else 1


def cutoff(measure: str) -> int:
    """How many documents of a query a measure, by its name, looks at; 10^9 for all of them."""
    parsed = _parse_measure(measure)
    found = parsed["cutoff"] if "cutoff" in parsed.SUPPORTED_PARAMS else None
    return found if isinstance(found, int) else _LARGEST_CUTOFF


def is_averaged(measure: str) -> bool:
    """Whether a measure, by its name, is a mean over queries and no count such as NumRet."""
    return isinstance(_parse_measure(measure).aggregator(), ir_measures.MeanAgg)


def _chunks(
    queries: Iterable[tuple[str, dict[str, float]]],
) -> Iterator[dict[str, dict[str, float]]]:
    remaining = iter(queries)
    while chunk := dict(islice(remaining, _CHUNK_QUERIES)):
        yield chunk


def _calculate(
    measures: list[ir_measures.Measure], qrels: Qrels, run: Run
) -> Iterator[ir_measures.Metric]:
    if not run:
        return
    try:
        yield from ir_measures.iter_calc(measures, qrels, run)
    except CalledProcessError:
        names = ", ".join(map(str, measures))
        raise InputError(
            f"measures {names}: gdeval, which computes ERR and nDCG(dcg='exp-log2'), failed; it "
            "needs perl and query ids that are whole numbers"
        ) from None


def _computable(judged: dict[str, int]) -> dict[str, int]:
    """Judgements of one query that trec_eval's code can take.

    Its nDCG reads memory that nobody wrote, and may never end, where all grades are negative. Such
    a query has no relevant document, so every measure of it is 0 with grades of 0 as well.
    """
    return judged if max(judged.values()) >= 0 else dict.fromkeys(judged, 0)


def _untied(scores: dict[str, float]) -> dict[str, float]:
    order = ranking(scores)
    return {document_id: float(len(order) - index) for index, document_id in enumerate(order)}


def _aggregate(measure: ir_measures.Measure, values: dict[str, float]) -> float:
    aggregator = measure.aggregator()
    for value in values.values():
        aggregator.add(value)
    return float(aggregator.result())


def _some(ids: Iterable[str]) -> str:
    return ", ".join(list(ids)[:3]) or "none"
