"""The recipe of a training run: one frozen dataclass, one section a concern.

The docstrings of the fields are the help text of `python -m jaxrank.train --help`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxrank.data.document_text import DocumentText
from jaxrank.models.implementations import Implementations
from jaxrank.models.lora import LoraConfig
from jaxrank.training.losses import LossConfig
from jaxrank.training.optimizer import OptimizerConfig
from jaxrank.training.text_options import TextOptions


@dataclass(frozen=True)
class ModelConfig:
    """Where the model comes from: a checkpoint (`init_from`) or a random start (`family`)."""

    init_from: str | None = None
    """Folder or hub id of a checkpoint to start from."""

    allow_pickle: bool = False
    """Read pytorch_model.bin of `init_from` where it has no safetensors. Needs PyTorch, which takes
    tensors from it in a process of its own and runs no code."""

    family: str | None = None
    """Family of a random start, e.g. bert or mamba; instead of `init_from`."""

    preset: str | None = None
    """Size of a random start, e.g. mamba-130m."""

    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the backbone's configuration to change: {num_layers: 4} of a preset, or
    {hidden_dropout: 0.0} of either."""

    head: Literal["linear", "classification"] | None = None
    """Score head: linear (the papers': one linear layer) or classification (the family's own in
    transformers, which PyTorch can read back). Null: the checkpoint's own; where it has none,
    classification if the family has it, else linear. A random start: linear."""

    head_dropout: float | None = None
    """Dropout rate in the head during training. Null: the checkpoint's own, or 0.1."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the model computes in; norms, softmax, scans, losses and scores are float32 always.
    auto: bfloat16 on an accelerator, float32 on a CPU, where bfloat16 brings nothing. float16 is
    trained with a loss scale, see `optimizer.loss_scale`."""

    parameter_dtype: Literal["float32", "bfloat16"] = "float32"
    """What parameters and the optimizer's averages are kept in. bfloat16 is how RankMamba's code
    trained OPT and Pythia: updates smaller than 1/256 of a weight are lost."""

    tokenizer: str | None = None
    """Folder, file or hub id of the tokenizer. Null: the one in `init_from`."""

    seed: int = 0
    """Seed of whatever starts at random: the head, or the whole model."""


@dataclass(frozen=True)
class DataConfig:
    """Training groups: a query, its positive, and negatives."""

    groups: Path
    """Groups file (JSONL) as `python -m jaxrank.mine` writes it, FlagEmbedding's or
    Tevatron's."""

    collection: Path | None = None
    """Collection folder: corpus.jsonl or documents/, queries.jsonl and, for the dev measure, qrels.
    Null: the groups file holds the texts (FlagEmbedding's or Tevatron's layout)."""

    document_text: DocumentText | None = None
    """Which of a document's fields become its text, joined by blanks: body, title-body or
    url-title-body. Null: as the collection says, or title-body."""

    relevance_split: str | None = None
    """Split of `collection` whose qrels say what else is relevant to a query, under
    loss.in_batch_negatives: documents of other groups with a grade above 0 are no negatives of it,
    nor are positives of its other groups. Null: train where the collection has it, else the groups
    alone say."""

    negatives: int = 7
    """Negatives of a group in one step, drawn anew each epoch from those in the file. RankMamba: 7;
    State Space Models are Strong Text Rerankers: 15 for passages."""

    min_negatives: int | None = None
    """Fewest negatives a group of the file may have; what it lacks of `negatives` is masked. Null:
    as many as `negatives`."""

    groups_per_batch: int = 8
    """Groups a step, so groups_per_batch * (1 + negatives) sequences. RankMamba: 8."""

    num_threads: int = 2
    """Threads that read and tokenise ahead of the training."""

    pretokenize: bool = False
    """Tokenise all queries and documents of the groups once, before the first step, and keep their
    ids in memory, up to `text.max_length` of each text: two bytes a token, or four for vocabularies
    above 65,536. Every batch is the same as without. Several processes do so in any case."""

    token_store: Path | None = None
    """Folder that keeps the ids of texts on disk, for this run and later ones: with the same texts,
    tokenizer, template and max_length nothing is tokenised twice, whatever the groups or the
    interruptions. Implies `pretokenize`, with the ids mapped from disk and not in memory."""

    packing: bool = False
    """Put several pairs in one row of `text.max_length` tokens, where attention, scans and
    convolutions keep them apart: hardly any time is spent on padding. Pays where pairs are short
    beside max_length. The number of rows differs from step to step by a few sizes, each of which is
    compiled once."""


@dataclass(frozen=True)
class DevConfig:
    """The dev measure at milestones: candidates of a first stage, reranked by the model so far."""

    run: Path | None = None
    """TREC run with candidates, as `python -m jaxrank.search` writes it. Null: no dev measure."""

    split: str = "dev"
    """Split of the collection whose qrels judge the ranking."""

    depth: int = 50
    """Candidates per query, the best of the run."""

    queries: int | None = 100
    """Size of the sample of queries, drawn with `seed`. Null: all of the split."""

    seed: int = 0
    """Seed of the sample."""

    measures: tuple[str, ...] = ("RR@10", "nDCG@10")
    """Measures, by their names in ir-measures."""

    batch_size: int = 32
    """Pairs that are scored at once."""


@dataclass(frozen=True)
class TrainingConfig:
    """Length of the run, what it leaves, and how it uses the machine."""

    output: Path
    """Run folder. The final model is in its folder `model`."""

    steps: int | None = None
    """Length of the run in steps; or give `epochs`."""

    epochs: float | None = None
    """Length of the run in passes over the groups file; or give `steps`. The papers: 1."""

    milestones: int = 10
    """How many times, at equal distances, the model is measured and saved. The last time is the end
    of the run and gives `model`; the others are in `milestones/step-000120` and so on."""

    log_every: int = 10
    """Steps between two lines of metrics."""

    seed: int = 0
    """Seed of shuffling, of drawing negatives and of dropout."""

    accumulation: int = 1
    """Parts that a step's groups are cut into: gradients of one part after the other are added up,
    so memory is that of one part and, but for which elements dropout drops, the result that of the
    whole. A divisor of data.groups_per_batch. Under loss.in_batch_negatives the groups of a part
    meet one another alone, so more parts mean fewer negatives."""

    chunk: int | None = None
    """Sequences that are scored at a time; the backward pass scores them again. For groups with so
    many negatives that one group does not fit: memory is that of a chunk, for about a third more
    arithmetic. Null: all of a part at once. Under loss.in_batch_negatives: documents that are read
    at a time, each chunk then meeting all queries of the part, one after the other; the negatives
    stay the same."""

    remat: Literal["auto", "none", "projections", "full"] = "auto"
    """How much of each layer the backward pass computes again: none; projections: all but the
    results of linear layers and of Mamba-2's recurrence; full: all from the layer's input on, which
    takes the least memory and the most time. auto: projections, but none for state-space models on
    a CPU."""

    find_batch_size: bool = False
    """Before the first step, compile the step and choose the smallest `accumulation` with which it
    fits the memory of the device, by the compiler's own analysis."""

    max_skipped_steps: int = 20
    """A step whose loss or gradient is not finite changes nothing and is counted; after so many in
    a row the run ends with an error."""

    deterministic: bool = False
    """The same bits in every run on the same kind of GPU, at some cost: XLA's deterministic
    operations, and choices of kernels that are kept in the run folder."""

    profile: bool = False
    """Write a trace of a few steps, for TensorBoard or xprof, to `profile` in the run folder."""

    wandb: str | None = None
    """Project on Weights & Biases to send the metrics to; needs the package wandb."""

    unroll: int = 1
    """Layers that are compiled as one piece: more is faster to run and slower to compile."""

    implementations: Implementations = field(default_factory=Implementations)

    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""

    overwrite: bool = False
    """Train anew, from step 0, where the output folder holds a run, finished or not."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Training state on disk, from which the same command goes on after an interruption."""

    every: int | None = 500
    """Steps between two checkpoints; milestones and interruptions make one too. Null:
    those alone."""

    keep: int = 2
    """Newest checkpoints that are kept, besides those of milestones under `keep_milestones`."""

    keep_milestones: bool = False
    """Keep the checkpoints of milestones too; their models are kept in any case."""


@dataclass(frozen=True)
class DevicesConfig:
    """How the work is spread. Every process of the run gives the same options."""

    fsdp: int = 1
    """Devices over which parameters and the optimizer's state are cut (fully sharded data
    parallel); a divisor of the number of devices. The others hold copies and take other groups."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Train a reranker on groups of one positive and some negatives."""

    model: ModelConfig = field(default_factory=ModelConfig)
    text: TextOptions = field(default_factory=TextOptions)
    data: DataConfig
    dev: DevConfig = field(default_factory=DevConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    training: TrainingConfig


def count_steps(config: TrainingConfig, *, num_groups: int, groups_per_batch: int) -> int:
    """Steps of the run; at the end of the epochs, a batch that groups do not fill counts as one."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None, "check_recipe comes first"
    # Rounded first, so that 0.1 epochs of 1,000 groups are not 100.00000000000001.
    return max(1, math.ceil(round(config.epochs * num_groups / groups_per_batch, 6)))
