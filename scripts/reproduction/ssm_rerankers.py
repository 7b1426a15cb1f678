"""State Space Models are Strong Text Rerankers (arXiv 2412.14354): passages, documents, BEIR.

What the paper does not give is our choice and marked so in configs/ssm-rerankers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxrank.files import read_json
from scripts.reproduction import plan
from scripts.reproduction.model_steps import ModelPlan, measure_steps, model_steps, table_step
from scripts.reproduction.official_files import (
    collection_files,
    find_beir_files,
    find_collection_files,
    missing_beir_files,
    missing_files,
)
from scripts.reproduction.papers import BEIR_SETS, TABLE_3_SETS, TRACKS_OF_SETS
from scripts.reproduction.plan import FirstStage, FirstStageName, Source
from scripts.reproduction.recipe_layers import find_models
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
from scripts.reproduction.steps import Step
from scripts.reproduction.training_plan import count_questions, open_options

SettingName = Literal["passage", "document", "longp", "beir"]


@dataclass(frozen=True)
class Setting:
    """A way in which the paper trains and evaluates.

    Attributes:
        layout: of the official files, which is also the name of their folder.
        negatives: of a group.
        rerank_options: further ones of `jaxrank.rerank`.
    """

    layout: str
    negatives: int
    rerank_options: tuple[str, ...] = ()


SETTINGS: dict[str, Setting] = {
    "passage": Setting("msmarco-passage", 15),
    "document": Setting("msmarco-document", 7, ("--long_documents", "firstp")),
    "longp": Setting("msmarco-document", 7, ("--long_documents", "longp", "--max_length", "1536")),
}
# The paper's negatives are from this model's top candidates.
HOW_TO_MAKE_NEGATIVES = (
    "a TREC run of the training questions, 100 candidates each, by BAAI/bge-large-en-v1.5 in the "
    "paper: encode documents and questions with it, search by inner product (faiss), write lines "
    "`query Q0 document rank score bge`; docs/reproducing.md says more. A BM25 run also works and "
    "is another recipe than the paper's"
)


@dataclass(frozen=True, kw_only=True)
class SsmRerankersOptions(CommonOptions):
    """Reproduce a setting of State Space Models are Strong Text Rerankers.

    Options behind `--` go to the training.
    """

    setting: SettingName
    """passage, document (FirstP, 512 tokens), longp (LongP, 1,536 tokens), or beir: the passage
    model on sets that it was not trained for."""

    data: Path = Path("data")
    """Folder with msmarco-passage, msmarco-document and beir in it, as far as a setting needs them.
    """

    output: Path = Path("runs/ssm-rerankers")
    """Folder for everything; models and settings share what they can."""

    negatives_run: Path | None = None
    """TREC run of the training questions that negatives are drawn from; the paper's is by
    BGE-large-en-v1.5."""

    trained: Path | None = None
    """Model folder for `beir`, in place of the passage model in the output folder."""

    first_stage: FirstStageName = "lucene"
    """What finds the candidates to rerank: lucene, the embedded bm25, or runs of your own. Our
    choice."""

    sets: tuple[str, ...] | None = None
    """Evaluation sets. Null: dev, dl19 and dl20, or all 13 BEIR sets."""

    k1: float = 0.9
    """BM25's k1; Anserini's default, our choice."""

    b: float = 0.4
    """BM25's b; Anserini's default, our choice."""


def reproduce(options: SsmRerankersOptions, train_options: Sequence[str]) -> Reproduction:
    """All steps of a setting, and what is missing for them.

    Raises:
        InputError: an unknown model or set, or options that do not fit together.
    """
    model = find_model(options.model, find_models("ssm-rerankers"), paper="the paper's models")
    options = replace(options, output=options.output.absolute(), data=options.data.absolute())
    title = f"State Space Models are Strong Text Rerankers, {model}, {options.setting}"
    if options.setting == "beir":
        sets = options.sets or BEIR_SETS
        check_sets(sets, BEIR_SETS)
        steps, missing, layers = _beir(options, model, sets, train_options)
        num_questions = 0
    else:
        sets = options.sets or TABLE_3_SETS
        check_sets(sets, None if options.collection else TABLE_3_SETS)
        steps, missing, layers = _trained(options, options.setting, model, sets, train_options)
        layout = SETTINGS[options.setting].layout
        num_questions = count_questions(sets, layout, first_stage=options.first_stage)
    return Reproduction(
        title=title,
        output=options.output,
        steps=steps,
        missing=missing,
        open_options=open_options(layers, train_options),
        num_questions=None if options.collection else num_questions,
        depth=options.depth,
    )


Parts = tuple[list[Step], list[str], tuple[Path, ...]]


def _trained(
    options: SsmRerankersOptions,
    name: str,
    model: str,
    sets: Sequence[str],
    train_options: Sequence[str],
) -> Parts:
    """Collection, groups, model, and the measures of `sets`."""
    setting = SETTINGS[name]
    data = options.data / setting.layout
    place = options.output / setting.layout
    is_own = options.collection is not None
    source = Source((options.collection or place / "collection").absolute(), options.document_text)
    first = make_first_stage(
        options, options.first_stage, place, data=data, parameters=(options.k1, options.b)
    )
    missing = (
        list(missing_of_collection(source, ("train", *sets)))
        if is_own
        else missing_files(collection_files(setting.layout, ("train", *sets)), data)
    )
    missing += missing_of_first_stage(first, sets)
    negatives = options.negatives_run.absolute() if options.negatives_run else Path("RUN")
    if options.negatives_run is None or not negatives.exists():
        missing.append(f"--negatives_run {negatives}: {HOW_TO_MAKE_NEGATIVES}")
    steps = []
    if not is_own:
        files = find_collection_files(setting.layout, data)
        name_of_import = f"{place.name}/collection"
        steps.append(
            plan.import_step(data, source, setting.layout, name=name_of_import, files=files)
        )
    tracks = {} if is_own else TRACKS_OF_SETS[setting.layout]
    groups = place / f"groups-{setting.negatives}.jsonl"
    steps.append(
        plan.mine_step(
            source,
            negatives,
            groups,
            name=f"{place.name}/mine-{setting.negatives}",
            negatives=setting.negatives,
            groups_per_positive=1,
        )
    )
    if not first.is_brought:
        search = f"{place.name}/{first.name}/search"
        steps += [
            plan.search_step(source, first, split, name=f"{search}-{split}") for split in sets
        ]
    layers = config_layers("ssm-rerankers", name, model)
    model_plan = ModelPlan(
        name=f"{place.name}/{first.name}/{name}/{model}",
        folder=first.folder / name / model,
        layers=layers,
        tokens=options.output / "tokens",
        tracks={split: tracks.get(split) for split in sets},
        table="own" if is_own else name,
    )
    steps += model_steps(
        model_plan,
        source,
        first,
        groups,
        reranking=reranking(options, *setting.rerank_options),
        train_options=train_options,
    )
    return steps, missing, layers


def _beir(
    options: SsmRerankersOptions, model: str, sets: Sequence[str], train_options: Sequence[str]
) -> Parts:
    """The passage model, unless it is there, and then one set after the other."""
    steps: list[Step] = []
    missing: list[str] = []
    layers: tuple[Path, ...] = ()
    trained = options.trained
    if trained is None:
        place = options.output / "msmarco-passage" / options.first_stage / "passage" / model
        trained = place / "model"
        if not _is_finished(place):
            steps, missing, layers = _trained(options, "passage", model, (), train_options)
    elif not trained.exists():
        missing.append(f"--trained {trained}: no such model folder")
    first = make_first_stage(
        options,
        options.first_stage,
        options.output / "beir",
        data=options.data,
        parameters=(options.k1, options.b),
    )
    missing += missing_of_first_stage(first, sets if first.is_brought else ())
    folder = first.folder / model
    for name in sets:
        data = options.data / "beir" / name
        missing += missing_beir_files(data)
        collection = options.output / "beir" / "collections" / name
        source = Source(collection, options.document_text)
        steps.append(
            plan.import_step(
                data, source, "beir", name=f"beir/import-{name}", files=find_beir_files(data)
            )
        )
        of_set = _of_set(first, name)
        if not first.is_brought:
            search = f"beir/{first.name}/search-{name}"
            steps.append(plan.search_step(source, of_set, "test", name=search))
        steps += measure_steps(
            source,
            of_set.run("test") if not first.is_brought else first.run(name),
            "test",
            trained.absolute(),
            folder,
            name=f"beir/{first.name}/{model}",
            reranking=reranking(options),
            track="beir",
            set_name=name,
        )
    steps.append(table_step(first.folder, table="beir", sets=sets))
    return steps, missing, layers


def _of_set(first: FirstStage, name: str) -> FirstStage:
    return replace(first, folder=first.folder / "candidates" / name)


def _is_finished(run_folder: Path) -> bool:
    path = run_folder / "run.json"
    return path.exists() and read_json(path).get("status") == "finished"
