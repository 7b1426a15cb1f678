"""python -m scripts.reproduction rankmamba|ssm-rerankers MODEL ...: the two reproduce scripts."""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import takewhile

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.options import parse

PAPERS = ("rankmamba", "ssm-rerankers")
FLAGS = ("--plan", "--redo_changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Say what is missing, the plan and its cost; then do what is not done yet."""
    from scripts.reproduction import rankmamba, ssm_rerankers
    from scripts.reproduction.presentation import present
    from scripts.reproduction.run import do_steps, open_records
    from scripts.reproduction.settings import CommonOptions

    paper, *words = list(sys.argv[1:] if argv is None else argv) or [""]
    own = list(takewhile(lambda word: word != "--", words))
    train_options = words[len(own) + 1 :]
    own = _with_values(own)
    say = partial(print, flush=True)
    options: CommonOptions
    if paper == "rankmamba":
        row = parse(rankmamba.RankMambaOptions, _program(paper), own, first="model")
        options, reproduction = row, rankmamba.reproduce(row, train_options)
    elif paper == "ssm-rerankers":
        setting = parse(ssm_rerankers.SsmRerankersOptions, _program(paper), own, first="model")
        options, reproduction = setting, ssm_rerankers.reproduce(setting, train_options)
    else:
        raise InputError(f"paper: got {paper!r}; {' or '.join(PAPERS)} is needed")
    records = open_records(reproduction.output, redo_changed=options.redo_changed)
    present(reproduction, records, with_commands=options.plan, say=say)
    if number := len(reproduction.missing) + len(reproduction.open_options):
        raise InputError(
            f"{number} of what is needed is missing, see the list above; bring it, or choose fewer "
            "sets with --sets"
        )
    if not options.plan:
        do_steps(reproduction.steps, records, say=say)


def _program(paper: str) -> str:
    return f"scripts.reproduction {paper}"


def _with_values(words: Sequence[str]) -> list[str]:
    """`--plan` alone as `--plan=true`."""
    following = [*words[1:], "--"]
    return [
        f"{word}=true" if word in FLAGS and after.startswith("--") else word
        for word, after in zip(words, following, strict=False)
    ]


if __name__ == "__main__":
    run(main)
