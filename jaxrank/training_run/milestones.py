"""What a training run does with a model along the way: measure it and save it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ckpt_convert.adapters import Adapters
from ckpt_convert.save import ADAPTER_FOLDER, save
from jaxrank.models.lora import merge_lora
from jaxrank.models.module import RerankerModule, parameters
from jaxrank.ranking.scoring import Scorer, Spread
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import Recipe
from jaxrank.training.dev import DevSample
from jaxrank.training.devices import put_whole, replicated, to_host
from jaxrank.training.per_query import milestone_file
from jaxrank.training.processes import is_first_process
from jaxrank.training.run_folder import MILESTONES_FOLDER, MODEL_FOLDER
from jaxrank.training.step import TrainState
from jaxrank.training_run.start import Start, describe_text


class Milestones:
    """Saves models under the run folder and measures them on the dev sample.

    Adapters are merged into the frozen rest. Of several processes all measure, and the first one
    writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        start: Start,
        *,
        total_steps: int,
        sample: DevSample | None,
        tokenizer: PairTokenizer,
        progress: bool,
        mesh: Mesh | None = None,
    ) -> None:
        self._recipe = recipe
        self._start = start
        self._total_steps = total_steps
        self._sample = sample
        self._progress = progress
        self._graphdef: nnx.GraphDef[RerankerModule] = nnx.graphdef(start.module)
        self._scorer = Scorer(
            nnx.eval_shape(merge_lora, start.module),
            pad_token_id=tokenizer.pad_token_id,
            max_length=tokenizer.text.max_length,
            batch_size=recipe.dev.batch_size,
            spread=None if mesh is None else _spread(mesh),
        )

    def save_model(self, step: int, state: TrainState) -> None:
        """Write the model folder of a milestone; the last one is the run's model."""
        recipe, start = self._recipe, self._start
        module = self._module(state)
        # Every process takes part in fetching arrays that lie on several of them.
        arrays, adapters = _arrays(merge_lora(module)), self._adapters(module)
        if not is_first_process():
            return
        provenance = [
            f"Started from {_starting_point(recipe)}.",
            f"Trained by jaxrank for {step} of {self._total_steps} steps of "
            f"{recipe.data.groups_per_batch} groups (1 positive, {recipe.data.negatives} "
            f"negatives) from {(recipe.data.collection or recipe.data.groups).name}, "
            f"{describe_text(start.text)}.",
        ]
        if start.lora is not None:
            provenance.append(
                f"Low-rank adapters of rank {start.lora.rank} are merged in; alone they are in the "
                f"folder `{ADAPTER_FOLDER}`, in PEFT's layout."
            )
        save(
            model_folder(recipe.training.output, step, self._total_steps),
            config=start.config,
            parameters=arrays,
            tokenizer=start.tokenizer,
            text=start.evaluation_text,
            provenance=provenance,
            adapters=adapters,
        )

    def _adapters(self, module: RerankerModule) -> Adapters | None:
        """The adapters of a module, to be saved alone too."""
        start, base = self._start, self._recipe.model.init_from
        if start.lora is None or base is None:
            return None
        return Adapters(
            base=str(Path(base).resolve()) if Path(base).is_dir() else base,
            lora=start.lora,
            parameters=_arrays(module),
            base_vocabulary=start.base_vocabulary,
        )

    @property
    def evaluate(self) -> Callable[[int, TrainState], dict[str, float]] | None:
        """Measures the model of a step on the dev sample; None without a sample."""
        sample = self._sample
        if sample is None:
            return None
        return lambda step, state: sample.evaluate(
            lambda pairs: self._scorer.score(
                pairs,
                parameters=nnx.state(merge_lora(self._module(state))),
                progress=self._progress,
            ),
            path=milestone_file(self._recipe.training.output, step) if is_first_process() else None,
        )

    def _module(self, state: TrainState) -> RerankerModule:
        """The model of a state, adapters beside the layers that they change."""
        return nnx.merge(self._graphdef, state.parameters, state.frozen)


def model_folder(output: Path, step: int, total_steps: int) -> Path:
    """Where a milestone goes; the last one is the final model."""
    is_last = step == total_steps
    return output / MODEL_FOLDER if is_last else output / MILESTONES_FOLDER / f"step-{step:06d}"


def _arrays(module: RerankerModule) -> dict[str, np.ndarray]:
    """All parameters by their paths, in float32 whatever they were kept in."""
    return {name: to_host(value).astype(np.float32) for name, value in parameters(module).items()}


def _spread(mesh: Mesh) -> Spread:
    return Spread(mesh.size, lambda batch: put_whole(batch, mesh), replicated(mesh))


def _starting_point(recipe: Recipe) -> str:
    """What the model started from, without the folders of this machine."""
    source = recipe.model.init_from
    if source is None:
        return "random parameters"
    return Path(source).name if Path(source).is_dir() else source
