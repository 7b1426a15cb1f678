"""A training run from a recipe to a model folder: the wiring of rooms that do not know each other.

The loop gets the saving of models from `ckpt_convert` and the scoring of the dev sample from
`ranking`. It stands beside the commands, since only they may import all of these.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
import optax
from flax import nnx
from transformers import PreTrainedTokenizerFast

from ckpt_convert.save import save
from jaxrank.data.collection import Collection
from jaxrank.data.groups import read_training_data
from jaxrank.data.pipeline import training_batches
from jaxrank.evaluation.runs import read_run
from jaxrank.files import file_digest
from jaxrank.models.module import RerankerConfig, RerankerModule, parameters
from jaxrank.options import as_plain, as_yaml
from jaxrank.ranking.scoring import Scorer
from jaxrank.shapes import PyTree
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import Recipe, check_recipe, count_steps
from jaxrank.training.dev import DevSample, draw_sample
from jaxrank.training.loop import LoopConfig, spread_milestones, train
from jaxrank.training.metrics import METRICS_FILE, MetricsLog
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training.plot import plot_training
from jaxrank.training.run_folder import (
    MILESTONES_FOLDER,
    MODEL_FOLDER,
    check_folder,
    describe_run,
    find_status,
    start_run,
    write_run,
)
from jaxrank.training.step import init_state, make_train_step
from jaxrank.training_start import describe_text, load_start


def train_reranker(
    recipe: Recipe, *, command: list[str], say: Callable[[str], None], progress: bool = True
) -> Path:
    """Train as `recipe` says, or find that its output folder holds this very run already.

    Args:
        command: the command line, for run.json.
        say: called with lines for the user, as they come up.

    Returns:
        The folder of the final model.

    Raises:
        InputError: options, data or a checkpoint that cannot be used (before anything is written),
            or a loss that is not finite.
    """
    check_recipe(recipe)
    output = recipe.training.output
    check_folder(output)
    model_folder = output / MODEL_FOLDER
    folder = recipe.data.collection
    collection = None if folder is None else Collection.open(folder, progress=progress)
    description = describe_run(
        config=as_plain(recipe),
        seed=recipe.training.seed,
        digests=_digests(recipe, collection),
        command=command,
    )
    if not recipe.training.overwrite:
        status = find_status(output, description)
        if status == "finished":
            say(f"{output}: this run is finished already; its model is {model_folder}")
            return model_folder
        if status == "unfinished":
            say(f"{output}: holds an unfinished run, which starts again from step 0")
    run = _prepare(recipe, collection)
    for note in run.notes:
        say(note)
    start_run(output, description, config_yaml=as_yaml(recipe))
    results = _train(run, progress=progress)
    write_run(output, description, status="finished", results=results)
    _summarise(run, results, say)
    return model_folder


class _Run(NamedTuple):
    """All that a run needs, loaded and checked; nothing is written yet."""

    recipe: Recipe
    config: RerankerConfig
    module: RerankerModule
    tokenizer: PreTrainedTokenizerFast
    pair_tokenizer: PairTokenizer
    evaluation_tokenizer: PairTokenizer
    batches: grain.IterDataset
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loop: LoopConfig
    sample: DevSample | None
    notes: tuple[str, ...]


def _prepare(recipe: Recipe, collection: Collection | None) -> _Run:
    """Load model and data and check that they fit one another."""
    start = load_start(recipe)
    notes = start.notes
    pair_tokenizer = PairTokenizer(start.tokenizer, start.text)
    evaluation_tokenizer = PairTokenizer(start.tokenizer, start.evaluation_text)
    data = read_training_data(
        recipe.data.groups,
        queries=None if collection is None else collection.queries,
        documents=None if collection is None else collection.documents,
        min_negatives=recipe.data.min_negatives or recipe.data.negatives,
    )
    total_steps = count_steps(
        recipe.training, num_groups=len(data.groups), groups_per_batch=recipe.data.groups_per_batch
    )
    loop = LoopConfig(
        total_steps=total_steps,
        milestones=spread_milestones(total_steps, recipe.training.milestones),
        log_every=recipe.training.log_every,
    )
    optimizer, schedule = make_optimizer(recipe.optimizer, total_steps)
    batches = training_batches(
        data.groups,
        data.queries,
        data.documents,
        pair_tokenizer,
        groups_per_batch=recipe.data.groups_per_batch,
        negatives=recipe.data.negatives,
        seed=recipe.training.seed,
        num_threads=recipe.data.num_threads,
    )
    sample = None
    if recipe.dev.run is not None and collection is not None:
        sample = draw_sample(
            recipe.dev,
            run=read_run(recipe.dev.run),
            qrels=collection.qrels(recipe.dev.split),
            queries=collection.queries,
            documents=collection.documents,
            tokenizer=evaluation_tokenizer,
        )
        if without := len(sample.qrels) - len(sample.candidates):
            count = f"{without} of {len(sample.qrels)} dev queries"
            notes = (*notes, f"{count} have no candidates in {recipe.dev.run} and count 0")
    return _Run(
        recipe,
        start.config,
        start.module,
        start.tokenizer,
        pair_tokenizer,
        evaluation_tokenizer,
        batches,
        optimizer,
        schedule,
        loop,
        sample,
        notes,
    )


def _train(run: _Run, *, progress: bool) -> dict[str, float]:
    """Train, and return the last metrics."""
    recipe = run.recipe
    key = jax.random.key(recipe.training.seed)
    graphdef, state = init_state(run.module, run.optimizer, key=key)
    scorer = Scorer(
        run.module,
        pad_token_id=run.pair_tokenizer.pad_token_id,
        max_length=run.evaluation_tokenizer.text.max_length,
        batch_size=recipe.dev.batch_size,
    )
    results: dict[str, float] = {}

    def save_model(step: int, values: PyTree) -> None:
        flat = parameters(nnx.merge(graphdef, values))
        save(
            _model_folder(recipe.training.output, step, run.loop.total_steps),
            config=run.config,
            parameters={name: np.asarray(value) for name, value in flat.items()},
            tokenizer=run.tokenizer,
            text=run.evaluation_tokenizer.text,
            provenance=[
                f"Started from {_starting_point(recipe)}.",
                f"Trained by jaxrank for {step} of {run.loop.total_steps} steps of "
                f"{recipe.data.groups_per_batch} groups (1 positive, {recipe.data.negatives} "
                f"negatives) from {_training_data(recipe)}, "
                f"{describe_text(run.pair_tokenizer.text)}.",
            ],
        )

    def evaluate(values: PyTree) -> dict[str, float]:
        assert run.sample is not None
        return run.sample.evaluate(
            lambda pairs: scorer.score(pairs, parameters=values, progress=progress)
        )

    with MetricsLog(recipe.training.output, tensorboard=recipe.training.tensorboard) as metrics:

        def log(step: int, values: Mapping[str, float]) -> None:
            results.update(values)
            metrics.log(step, values)

        if run.sample is not None:
            log(0, run.sample.evaluate_first_stage())
        train(
            state,
            make_train_step(graphdef, run.optimizer, run.schedule),
            iter(run.batches),
            run.loop,
            log=log,
            save_model=save_model,
            evaluate=None if run.sample is None else evaluate,
            progress=progress,
        )
    return results


def _starting_point(recipe: Recipe) -> str:
    """What the model started from, without the folders of this machine."""
    source = recipe.model.init_from
    if source is None:
        return "random parameters"
    return Path(source).name if Path(source).is_dir() else source


def _training_data(recipe: Recipe) -> str:
    return (recipe.data.collection or recipe.data.groups).name


def _model_folder(output: Path, step: int, total_steps: int) -> Path:
    """Where a milestone goes; the last one is the final model."""
    is_last = step == total_steps
    return output / MODEL_FOLDER if is_last else output / MILESTONES_FOLDER / f"step-{step:06d}"


def _digests(recipe: Recipe, collection: Collection | None) -> dict[str, str]:
    """Path -> SHA-256 of the files that the result depends on."""
    files = {} if collection is None else collection.digest()
    digests = {f"{recipe.data.collection}/{name}": sha for name, sha in files.items()}
    paths = [recipe.data.groups]
    if recipe.dev.run is not None:
        paths.append(recipe.dev.run)
    if recipe.model.init_from is not None:
        start = Path(recipe.model.init_from)
        paths += sorted(start.glob("*.safetensors")) or sorted(start.glob("pytorch_model*.bin"))
    return digests | {str(path): file_digest(path) for path in paths}


def _summarise(run: _Run, results: Mapping[str, float], say: Callable[[str], None]) -> None:
    output = run.recipe.training.output
    say(f"trained {run.loop.total_steps} steps; last loss {results['loss']:.3f}")
    if run.sample is not None:
        for name in run.sample.measures:
            before, after = results[f"first_stage/{name}"], results[f"dev/{name}"]
            say(f"{name} on {len(run.sample.qrels)} dev queries: {before:.3f} -> {after:.3f}")
        say(f"dev: {run.sample.truncation.summary()}")
    say(f"training: {run.pair_tokenizer.counts.summary()}")
    say(f"metrics: {output / METRICS_FILE}, drawn in {plot_training(output)}")
    say(f"model: {output / MODEL_FOLDER}")
