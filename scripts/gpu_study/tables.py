"""The study's summary as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {
    "minilm": "MiniLM-L6, fine-tuned",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "bert": "BERT",
    "bm25": "BM25",
}


def quality_table(summary: Mapping[str, Any]) -> Sequence[str]:
    """Measures with 95% intervals over questions, seeds apart, and paired tests."""
    measures = list(summary["bm25"])
    lines = [
        f"| Model | {' | '.join(f'{name} (95%) | its seeds' for name in measures)} |",
        f"|---|{'---|' * 2 * len(measures)}",
    ]
    rows = {"bm25": summary["bm25"]}
    rows |= {name: found["quality"] for name, found in summary["models"].items()}
    for name, quality in rows.items():
        cells = [TITLES[name]]
        for measure in measures:
            found = quality[measure]
            low_high = (
                ""
                if found["interval"] is None
                else " ({:.3f} to {:.3f})".format(*found["interval"])
            )
            cells += [
                f"{found['mean']:.3f}{low_high}",
                " ".join(f"{mean:.3f}" for mean in found["seeds"]) if name != "bm25" else "",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| Model | against | measure | difference (95%) | p (permutation) |"]
    lines += ["|---|---|---|---|---|"]
    for test in summary["tests"]:
        low_high = (
            "" if test["interval"] is None else " ({:+.3f} to {:+.3f})".format(*test["interval"])
        )
        cells = [TITLES[test["model"]], TITLES[test["baseline"]], test["measure"]]
        cells += [f"{test['difference']:+.3f}{low_high}", f"{test['p_permutation']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cost_table(summary: Mapping[str, Any]) -> Sequence[str]:
    """Size, time and memory of training: medians over the seeds."""
    lines = [
        "| Model | parameters (without embeddings) | pairs | real tokens | training s | compile s "
        "| wall-clock s | pairs/s | scoring pairs/s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in summary["models"].items():
        memory = found["memory_mib"]
        cells = [
            TITLES[name],
            f"{found['parameters'] / 1e6:.1f}M "
            f"({found['parameters_without_embeddings'] / 1e6:.1f}M)",
            f"{found['pairs']:,.0f}",
            f"{found['tokens']:,.0f}",
            *(f"{found[key]:.1f}" for key in ("training_s", "compile_s", "wall_clock_s")),
            *(f"{found[key]:,.0f}" for key in ("pairs_per_s", "scoring_pairs_per_s")),
            "unknown" if memory is None else f"{memory:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machine = summary["machine"]
    versions = machine["versions"]
    lines += ["", f"{machine['device']}, jax {versions['jax']}; medians over the seeds."]
    return lines
