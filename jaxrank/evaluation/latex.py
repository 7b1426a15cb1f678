r"""Rows for a LaTeX table as papers print them: `mamba-130m & 0.4089 & 0.6652$^{\dagger}$ \\`.

Rows only, to stand between the rules of any `tabular`; they need no package.
"""

from collections.abc import Iterator, Sequence

from jaxrank.evaluation.report import Report

SIGNIFICANT = 0.05
_DAGGER = r"$^{\dagger}$"
_ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}  # fmt: skip


def latex_rows(report: Report) -> Iterator[str]:
    """A comment that names the columns, then a row a run; a dagger marks a significant difference.

    Significant, better or worse, is a t-test against the baseline with p < .05 after correction.
    """
    columns = " & ".join(["run", *report.measures])
    yield f"% {columns}; means over {report.num_queries} queries"
    if report.tests:
        yield (
            f"% dagger: p < {SIGNIFICANT:g} against {report.baseline} (paired t-test, correction: "
            f"{report.correction})"
        )
    for name, evaluation in report.evaluations.items():
        p_values = report.p_values.get(name, {})
        yield latex_row(
            name,
            [evaluation.means[measure] for measure in report.measures],
            [
                measure in p_values and p_values[measure].t_test < SIGNIFICANT
                for measure in report.measures
            ],
        )


def latex_row(
    name: str, values: Sequence[float | None], is_marked: Sequence[bool] | None = None
) -> str:
    """One row: the name, then the values with four digits; None becomes a dash.

    Args:
        is_marked: which values get a dagger; None marks none.
    """
    marks = [False] * len(values) if is_marked is None else is_marked
    cells = [
        "--" if value is None else f"{value:.4f}{_DAGGER if mark else ''}"
        for value, mark in zip(values, marks, strict=True)
    ]
    return " & ".join([escape_latex(name), *cells]) + r" \\"


def escape_latex(text: str) -> str:
    """Text with the letters escaped that LaTeX would read as commands."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
