"""A training run from a recipe to a model folder.

The loop gets the saving of models from `ckpt_convert` and the scoring of the dev sample from
`ranking`, by way of `milestones`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.options import as_plain, as_yaml
from jaxrank.training.checkpoint import CHECKPOINTS_FOLDER, Checkpoints, Restored
from jaxrank.training.config import Recipe
from jaxrank.training.determinism import make_deterministic
from jaxrank.training.devices import find_mesh, on_host
from jaxrank.training.loop import train
from jaxrank.training.metrics import METRICS_FILE, MetricsLog, NoMetrics, read_metrics
from jaxrank.training.per_query import first_stage_file
from jaxrank.training.plot import plot_training
from jaxrank.training.processes import is_first_process, process_number, wait_for_all
from jaxrank.training.recipe_checks import check_recipe
from jaxrank.training.run_folder import (
    MODEL_FOLDER,
    PROFILE_FOLDER,
    check_folder,
    check_resolved,
    describe_run,
    environment_notes,
    find_status,
    finish_run,
    read_resolved,
    resume_run,
    start_run,
)
from jaxrank.training.stopping import Stopping
from jaxrank.training.throughput import traced
from jaxrank.training.wandb_sink import WandbSink, check_wandb
from jaxrank.training_run.machinery import build_machinery
from jaxrank.training_run.milestones import Milestones
from jaxrank.training_run.prepare import Prepared, prepare
from jaxrank.training_run.provenance import input_digests, inputs_by_option, resolved_values
from jaxrank.training_run.session import Session


def train_reranker(
    recipe: Recipe, *, command: list[str], say: Callable[[str], None], progress: bool = True
) -> Path:
    """Train as `recipe` says, or go on with this very run, which its output folder holds already.

    Several processes call it alike; the first one of them prints and writes.

    Args:
        command: the command line, for run.json.
        say: called with lines for the user, as they come up.

    Returns:
        The folder of the final model.

    Raises:
        InputError: options, data or a checkpoint that cannot be used (before anything is written),
            or too many losses that are not finite.
        TrainingStoppedError: a signal asked for it; the same call goes on.
    """
    check_recipe(recipe)
    if recipe.training.wandb is not None:
        check_wandb(recipe.training.wandb)
    output = recipe.training.output
    check_folder(output, inputs_by_option(recipe))
    if recipe.training.deterministic and (note := make_deterministic(output, process_number())):
        say(note)
    if not is_first_process():
        say, progress = _say_nothing, False
    mesh = find_mesh(
        recipe.devices.fsdp,
        groups_per_batch=recipe.data.groups_per_batch,
        accumulation=recipe.training.accumulation,
    )
    if mesh is not None:
        cut = (
            f"parameters cut over {recipe.devices.fsdp} of them" if recipe.devices.fsdp > 1 else ""
        )
        say(f"{mesh.size} devices: {cut or 'a copy of the parameters on each'}")
    model_folder = output / MODEL_FOLDER
    collection = _open_collection(recipe, progress=progress)
    description = describe_run(
        config=as_plain(recipe),
        seed=recipe.training.seed,
        digests=input_digests(recipe, collection),
        command=command,
    )
    status = "new" if recipe.training.overwrite else find_status(output, description)
    if status == "finished":
        say(f"{output}: this run is finished already; its model is {model_folder}")
        return model_folder
    earlier = read_resolved(output) if status == "unfinished" else None
    with on_host(mesh):
        run = prepare(recipe, collection, mesh, earlier, progress=progress)
    for note in run.notes:
        say(note)
    description["resolved"] = resolved_values(recipe, run.start)
    if collection is not None:
        description["resolved"]["data.document_text"] = collection.documents.document_text
    if recipe.training.find_batch_size:
        description["resolved"]["training.accumulation"] = run.recipe.training.accumulation
    if status == "unfinished":
        check_resolved(output, description["resolved"])
    try:
        session = _train(
            run, description, is_resumed=status == "unfinished", say=say, progress=progress
        )
    except TrainingStoppedError as stop:
        if recipe.training.overwrite:
            stop.args = (f"{stop}; without training.overwrite, which would start anew",)
        raise
    if is_first_process():
        finish_run(output, results=session.summary())
        _summarise(run, session, say)
    return model_folder


def _open_collection(recipe: Recipe, *, progress: bool) -> Collection | None:
    """The collection that the groups' ids are of, with documents of the recipe's fields."""
    folder, document_text = recipe.data.collection, recipe.data.document_text
    if folder is None:
        return None
    return Collection.open(folder, document_text=document_text, progress=progress)


def _train(
    run: Prepared,
    description: Mapping[str, Any],
    *,
    is_resumed: bool,
    say: Callable[[str], None],
    progress: bool,
) -> Session:
    """Train, or go on with training, and return the results."""
    recipe = run.recipe
    machinery = build_machinery(run, say=say)
    milestones = Milestones(
        recipe,
        run.start,
        total_steps=run.loop.total_steps,
        sample=run.sample,
        tokenizer=run.evaluation_tokenizer,
        progress=progress,
        mesh=run.mesh,
    )
    checkpoints = Checkpoints(
        recipe.training.output / CHECKPOINTS_FOLDER,
        keep=recipe.checkpoint.keep,
        keep_steps=run.loop.milestones if recipe.checkpoint.keep_milestones else (),
        say=say,
    )
    restored = checkpoints.restore(machinery.state) if is_resumed else None
    _open_folder(run, description, restored, is_resumed=is_resumed, say=say)
    earlier = None if restored is None else restored.progress
    state = machinery.state if restored is None else restored.state
    metrics: MetricsLog = NoMetrics()
    if is_first_process():
        metrics = MetricsLog(
            recipe.training.output,
            tensorboard=recipe.training.tensorboard,
            more=_wandb_sinks(recipe, say),
            # A checkpoint of a step is older than what was logged of that step.
            resume_from=None if restored is None else int(state.step) - 1,
        )
    batches = iter(run.data.batches)
    session = Session(
        batches=batches,
        metrics=metrics,
        checkpoints=checkpoints,
        measure=None if run.sample is None else f"dev/{run.sample.measures[0]}",
        earlier=earlier,
        first_step=int(state.step),
    )
    wait_for_all("all is ready for the first step")
    agree = _any_process if jax.process_count() > 1 else None
    # A signal while the last checkpoint is being written must not end that.
    with (
        Stopping(say, agree=agree) as stopping,
        checkpoints,
        metrics,
        traced(machinery.train_step, _trace_folder(recipe), say=say) as traced_step,
    ):
        if run.sample is not None and restored is None:
            path = first_stage_file(recipe.training.output) if is_first_process() else None
            session.log(0, run.sample.evaluate_first_stage(path=path))
        train(
            state,
            traced_step,
            batches,
            run.loop,
            log=session.log,
            save_model=milestones.save_model,
            evaluate=milestones.evaluate,
            save_checkpoint=session.save_checkpoint,
            resume=None if earlier is None else earlier["loop"],
            stopping=stopping,
            put_batch=machinery.put_batch,
            rates=machinery.rates,
            say=say,
            progress=progress,
        )
    return session


def _open_folder(
    run: Prepared,
    description: Mapping[str, Any],
    restored: Restored | None,
    *,
    is_resumed: bool,
    say: Callable[[str], None],
) -> None:
    """Make the run folder ready and say where training begins."""
    output = run.recipe.training.output
    wait_for_all("status of the run folder is read")
    if not is_first_process():
        return
    if restored is not None:
        for note in environment_notes(output, description):
            say(note)
        step = int(restored.state.step)
        say(
            f"{output}: goes on from step {step} of {run.loop.total_steps} ({restored.folder.name})"
        )
        resume_run(output, description, step=step)
        return
    if is_resumed:
        _check_start_again(run)
        say(f"{output}: holds an unfinished run without a checkpoint, which starts again")
    start_run(output, description, config_yaml=as_yaml(run.recipe))


def _check_start_again(run: Prepared) -> None:
    """Refuse to lose what a run has done beyond the step at which its first checkpoint was whole.

    A save waits for the one before, so the first was complete when the second step was logged.
    """
    folder, every = run.recipe.training.output, run.loop.checkpoint_every
    due = set(run.loop.milestones)
    if every is not None:
        due.update(range(every, run.loop.total_steps + 1, every))
    lines = read_metrics(folder) if (folder / METRICS_FILE).exists() else []
    done = max((line["step"] for line in lines), default=0)
    if len(due) > 1 and done >= sorted(due)[1]:
        raise InputError(
            f"{folder / CHECKPOINTS_FOLDER}: holds no checkpoint, and the run was at step {done}; "
            "put them back, choose another training.output or pass --training.overwrite true"
        )


def _trace_folder(recipe: Recipe) -> Path | None:
    """Where a trace goes, if the recipe asks for one."""
    is_asked = recipe.training.profile and is_first_process()
    return recipe.training.output / PROFILE_FOLDER if is_asked else None


def _say_nothing(line: str) -> None:
    """What the other processes than the first say."""


def _any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all call it together."""
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def _wandb_sinks(recipe: Recipe, say: Callable[[str], None]) -> list[WandbSink]:
    """Weights & Biases, where the recipe asks for it."""
    project, folder = recipe.training.wandb, recipe.training.output
    if project is None:
        return []
    return [WandbSink(project, folder, config=as_plain(recipe), say=say)]


def _summarise(run: Prepared, session: Session, say: Callable[[str], None]) -> None:
    output, results = run.recipe.training.output, session.results
    say(f"trained {run.loop.total_steps} steps; last loss {results['loss']:.4g}")
    if run.sample is not None:
        for name in run.sample.measures:
            before, after = results[f"first_stage/{name}"], results[f"dev/{name}"]
            say(f"{name} on {len(run.sample.qrels)} dev queries: {before:.3f} -> {after:.3f}")
        if (best := session.best) is not None:
            name = best.measure.removeprefix("dev/")
            say(f"best {name}: {best.value:.3f} at step {best.step} of {run.loop.total_steps}")
        say(f"dev: {run.sample.truncation.summary()}")
    if (counts := run.pair_tokenizer.counts).pairs:
        part = f" since step {session.first_step}" if session.first_step else ""
        say(f"training{part}, with what was read ahead: {counts.summary()}")
    say(f"metrics: {output / METRICS_FILE}, drawn in {plot_training(output)}")
    say(f"model: {output / MODEL_FOLDER}")
