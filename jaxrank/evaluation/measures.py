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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures

from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run, ranking

_MEASURE = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?(?:@(?P<cutoff>[0-9.]+))?")
# trec_eval's code turns a cutoff that its integers cannot hold into another one.
_LARGEST_CUTOFF = 10**9
# Blanks and commas between measures, but not those inside the brackets of one.
_SEPARATOR = re.compile(r"[\s,]+(?![^()]*\))")


@dataclass(frozen=True)
class Evaluation:
    """Values of one run. Queries are those of the qrels, in their order.

    Attributes:
        per_query: measure -> query id -> value.
        means: measure -> mean over all queries of the qrels (ir-measures' counts, such as NumRet,
            are summed).
        missing_queries: queries of the qrels that the run lacks; each counts 0.
        unjudged_queries: queries of the run that the qrels lack; they are left out.
    """

    per_query: dict[str, dict[str, float]]
    means: dict[str, float]
    missing_queries: tuple[str, ...]
    unjudged_queries: tuple[str, ...]


def split_measures(text: str) -> list[str]:
    """The single names in "RR@10 nDCG@10" or "RR@10, AP(rel=2)"."""
    return [name for name in _SEPARATOR.split(text.strip()) if name]


def evaluate_run(qrels: Qrels, run: Run, measures: Sequence[str]) -> Evaluation:
    """Evaluate `run`; a query that it lacks counts 0, as with `trec_eval -c`.

    Raises:
        InputError: an unknown measure, or a run that shares no query with the qrels.
    """
    parsed = parse_measures(measures)
    judged_run = {query: _untied(scores) for query, scores in run.items() if query in qrels}
    if not judged_run:
        raise InputError(
            f"the run and the qrels share no query (run: {_some(run)}; qrels: {_some(qrels)}); "
            "are they of the same split?"
        )
    per_query: dict[str, dict[str, float]] = {
        name: dict.fromkeys(qrels, 0.0) for name in map(str, parsed)
    }
    for value in ir_measures.iter_calc(parsed, qrels, judged_run):
        per_query[str(value.measure)][value.query_id] = float(value.value)
    return Evaluation(
        per_query=per_query,
        means={str(measure): _aggregate(measure, per_query[str(measure)]) for measure in parsed},
        missing_queries=tuple(query for query in qrels if query not in run),
        unjudged_queries=tuple(query for query in run if query not in qrels),
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
        raise InputError(f"measure {text!r}: not of the form Name(key=value)@cutoff")
    known = ir_measures.measures.registry
    if match["name"] not in known:
        raise InputError(f"measure {text!r}: unknown; {_advice(match['name'])}")
    measure = known[match["name"]]
    try:
        keywords = _parse_arguments(match["arguments"] or "")
        if match["cutoff"]:
            keywords[measure.AT_PARAM] = ast.literal_eval(match["cutoff"])
        if not 1 <= keywords.get("cutoff", 1) <= _LARGEST_CUTOFF:
            raise ValueError(f"the cutoff must be from 1 to {_LARGEST_CUTOFF:,}")
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


def _advice(name: str) -> str:
    # Aliases such as NDCG come first, so that the proper name wins where both differ in case only.
    known = sorted(ir_measures.measures.registry.items(), key=lambda item: item[0] == item[1].NAME)
    by_lower_case = {name.lower(): measure.NAME for name, measure in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {by_lower_case[nearest[0]]!r}?"
    return "known are, among others, RR, nDCG, AP, P, R and Success"


def _untied(scores: dict[str, float]) -> dict[str, float]:
    order = ranking(scores)
    return {document_id: float(len(order) - index) for index, document_id in enumerate(order)}


def _aggregate(measure: ir_measures.Measure, values: dict[str, float]) -> float:
    aggregator = measure.aggregator()
    for value in values.values():
        aggregator.add(value)
    return float(aggregator.result())


def _some(ids: dict[str, dict[str, float]] | Qrels) -> str:
    return ", ".join(list(ids)[:3]) or "none"
