"""The steps from groups to a table: train, rerank, measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.reproduction.plan import FirstStage, Source
from scripts.reproduction.steps import Step, arguments, option


@dataclass(frozen=True)
class Reranking:
    """How candidates are scored.

    Attributes:
        depth: candidates of a question.
        options: further ones of `jaxrank.rerank`.
    """

    depth: int
    options: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = 64


@dataclass(frozen=True)
class ModelPlan:
    """A model of a table, with what it is trained from and measured on.

    Attributes:
        name: of its steps.
        folder: its run folder, beside those of the table's other models.
        layers: the configs of its training.
        tokens: folder of tokenised texts.
        tracks: set -> track of `jaxrank.evaluate`, None for a user's own split.
        table: which of `scripts/results_table.py`.
    """

    name: str
    folder: Path
    layers: tuple[Path, ...]
    tokens: Path
    tracks: Mapping[str, str | None]
    table: str


def model_steps(
    model: ModelPlan,
    source: Source,
    first: FirstStage,
    groups: Path,
    *,
    reranking: Reranking,
    train_options: Sequence[str],
) -> list[Step]:
    """Train a model, measure it on all sets, and put it into the table."""
    steps = [
        train_step(
            source,
            groups,
            model.folder,
            name=f"{model.name}/train",
            layers=model.layers,
            tokens=model.tokens,
            dev_run=first.run("dev") if "dev" in model.tracks else None,
            more=train_options,
        )
    ]
    for split, track in model.tracks.items():
        steps += measure_steps(
            source,
            first.run(split),
            split,
            model.folder / "model",
            model.folder,
            name=model.name,
            reranking=reranking,
            track=track,
        )
    if model.tracks:
        sets = tuple(model.tracks)
        steps.append(table_step(model.folder.parent, table=model.table, sets=sets))
    return steps


def train_step(
    source: Source,
    groups: Path,
    folder: Path,
    *,
    name: str,
    layers: Sequence[Path],
    tokens: Path,
    dev_run: Path | None,
    more: Sequence[str],
) -> Step:
    """A model from groups; `more` are the user's own options, which win over the recipe.

    Without a dev run there is no dev measure, whatever the recipe says.
    """
    return Step(
        name=name,
        about="the model",
        module="jaxrank.train",
        arguments=arguments(
            *(word for layer in layers for word in ("--config", layer)),
            "--data.collection", source.collection,
            *option("--data.document_text", source.document_text),
            "--data.groups", groups, "--data.token_store", tokens,
            "--dev.run", dev_run or "null", "--training.output", folder, *more,
        ),
        inputs=(source.documents, source.queries("train"), groups, *layers),
        outputs=(folder / "model",),
        checks_itself=True,
    )  # fmt: skip


def rerank_step(
    source: Source,
    candidates: Path,
    split: str,
    model: Path,
    output: Path,
    *,
    name: str,
    reranking: Reranking,
) -> Step:
    """The candidates in the model's order."""
    return Step(
        name=name,
        about=f"the best {reranking.depth} candidates of {split} in the model's order",
        module="jaxrank.rerank",
        arguments=arguments(
            "--model", model, *source.options(), "--run", candidates, "--output", output,
            "--depth", reranking.depth, "--dtype", reranking.dtype,
            "--batch_size", reranking.batch_size, *reranking.options,
        ),
        inputs=(source.documents, source.queries(split), candidates, model),
        outputs=(output,),
    )  # fmt: skip


def evaluate_step(
    qrels: Path, candidates: Path, reranked: Path, output: Path, *, name: str, track: str | None
) -> Step:
    """A track's measures, the model's beside the first stage's; without a track, common ones."""
    measures = ("--measures", "RR@10 RR@100 nDCG@10 R@100") if track is None else ("--track", track)
    return Step(
        name=name,
        about="measures, beside the first stage's",
        module="jaxrank.evaluate",
        arguments=arguments(
            "--qrels", qrels, "--runs", candidates, reranked, "--baseline", candidates,
            *measures, "--json", output, "--per_query", output.with_suffix(".tsv"),
        ),
        inputs=(qrels, candidates, reranked),
        outputs=(output, output.with_suffix(".tsv")),
    )  # fmt: skip


def table_step(folder: Path, *, table: str, sets: Sequence[str]) -> Step:
    """The table of all models in `folder` that were measured by the time that it is made."""
    return Step(
        name=f"table of {folder.name}",
        about="the table so far",
        module="scripts.results_table",
        arguments=arguments(
            folder, "--table", table, "--sets", sets,
            "--output", folder / "table.md",
        ),
        inputs=(),
        outputs=(folder / "table.md",),
        is_recorded=False,
    )  # fmt: skip


def measure_steps(
    source: Source,
    candidates: Path,
    split: str,
    model: Path,
    folder: Path,
    *,
    name: str,
    reranking: Reranking,
    track: str | None,
    set_name: str | None = None,
) -> list[Step]:
    """Rerank a split and measure it; `set_name` is how the set is called, if not as the split."""
    called = set_name or split
    reranked = folder / "runs" / f"{folder.name}.{called}.run"
    return [
        rerank_step(
            source,
            candidates,
            split,
            model,
            reranked,
            name=f"{name}/rerank-{called}",
            reranking=reranking,
        ),
        evaluate_step(
            source.qrels(split),
            candidates,
            reranked,
            folder / "evaluation" / f"{called}.json",
            name=f"{name}/evaluate-{called}",
            track=track,
        ),
    ]
