"""python -m jaxrank.train: fine-tune a reranker on groups of one positive and some negatives."""

import sys
from collections.abc import Sequence
from functools import partial

from jaxrank.command_line import run
from jaxrank.options import parse


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, train, say where the model is."""
    # Imported late, since Ctrl-C is met only inside `run`.
    from jaxrank.training.config import Recipe

    recipe = parse(Recipe, "jaxrank.train", argv)
    from jaxrank.training.processes import processes_together
    from jaxrank.training_run.run import train_reranker

    arguments = list(sys.argv[1:] if argv is None else argv)
    with processes_together():
        train_reranker(
            recipe,
            command=["python", "-m", "jaxrank.train", *arguments],
            say=partial(print, flush=True),
        )


if __name__ == "__main__":
    run(main)
