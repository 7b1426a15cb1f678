"""RankMamba (arXiv 2403.18276): the steps from MS MARCO's files to a row of Table 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.reproduction import plan
from scripts.reproduction.model_steps import ModelPlan, model_steps
from scripts.reproduction.official_files import (
    collection_files,
    find_collection_files,
    missing_files,
)
from scripts.reproduction.papers import TABLE_3, TABLE_3_SETS, TRACKS_OF_SETS
from scripts.reproduction.plan import FirstStageName, Source
from scripts.reproduction.settings import (
    CommonOptions,
    Reproduction,
    check_sets,
    config_layers,
    find_model,
    make_first_stage,
    missing_of_collection,
    missing_of_first_stage,
    reranking,
)
from scripts.reproduction.training_plan import count_questions, open_options

LAYOUT = "msmarco-document"
NEGATIVES, GROUPS_PER_POSITIVE = 7, 2

Recipe = Literal["paper", "authors-code"]


@dataclass(frozen=True, kw_only=True)
class RankMambaOptions(CommonOptions):
    """Reproduce a row of RankMamba's Table 3; options behind `--` go to the training."""

    recipe: Recipe = "paper"
    """As the paper says, or as its authors' code does."""

    data: Path = Path("data/msmarco-document")
    """Folder with the official files, plain or .gz."""

    output: Path = Path("runs/rankmamba")
    """Folder for everything; models share what they can."""

    first_stage: FirstStageName = "lucene"
    """What finds the candidates: lucene as in the paper, the embedded bm25, the track's official
    top 100, or runs of your own."""

    sets: tuple[str, ...] = TABLE_3_SETS
    """Evaluation sets: dev, dl19, dl20, or splits of your own collection."""

    k1: float = 4.46
    """BM25's k1; 4.46 is RankMamba's."""

    b: float = 0.82
    """BM25's b; 0.82 is RankMamba's."""

    index: str | None = None
    """For lucene: your index folder, or the name of a prebuilt one, e.g. msmarco-v1-doc-slim. Null:
    one is built."""


def reproduce(options: RankMambaOptions, train_options: Sequence[str]) -> Reproduction:
    """All steps of a row, and what is missing for them.

    Raises:
        InputError: an unknown model or set, or options that do not fit together.
    """
    model = find_model(options.model, list(TABLE_3), paper="Table 3's models")
    is_own = options.collection is not None
    check_sets(options.sets, None if is_own else TABLE_3_SETS)
    output = options.output.absolute()
    data = options.data.absolute()
    source = Source((options.collection or output / "collection").absolute(), options.document_text)
    first = make_first_stage(
        options,
        options.first_stage,
        output,
        data=data,
        parameters=(options.k1, options.b),
        index=options.index,
    )
    splits = ("train", *options.sets)
    missing = (
        list(missing_of_collection(source, splits))
        if is_own
        else missing_files(collection_files(LAYOUT, splits), data)
    )
    missing += missing_of_first_stage(first, splits)

    steps = []
    if not is_own:
        files = find_collection_files(LAYOUT, data)
        steps.append(plan.import_step(data, source, LAYOUT, name="collection", files=files))
    if not first.is_brought:
        steps += [plan.search_step(source, first, split) for split in splits]
    groups = first.folder / "groups.jsonl"
    steps.append(
        plan.mine_step(
            source,
            first.run("train"),
            groups,
            name=f"{first.name}/mine",
            negatives=NEGATIVES,
            groups_per_positive=GROUPS_PER_POSITIVE,
        )
    )
    tracks = {} if is_own else TRACKS_OF_SETS[LAYOUT]
    configs = config_layers("rankmamba", options.recipe, model)
    model_plan = ModelPlan(
        name=f"{first.name}/{options.recipe}/{model}",
        folder=first.folder / options.recipe / model,
        layers=configs,
        tokens=output / "tokens",
        tracks={name: tracks.get(name) for name in options.sets},
        table="own" if is_own else "table3",
    )
    steps += model_steps(
        model_plan,
        source,
        first,
        groups,
        reranking=reranking(options),
        train_options=train_options,
    )
    title = f"RankMamba, {model}, recipe {options.recipe}, first stage {first.name}"
    return Reproduction(
        title=title,
        output=output,
        steps=steps,
        missing=missing,
        open_options=open_options(configs, train_options),
        num_questions=None
        if is_own
        else count_questions(options.sets, LAYOUT, first_stage=first.name),
        depth=options.depth,
    )
