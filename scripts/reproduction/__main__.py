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
    if number := present(reproduction, records, with_commands=options.plan, say=say):
        things = "1 thing is" if number == 1 else f"{number} things are"
        message = f"{things} needed and not there, see the list above"
        if reproduction.missing:
            message += "; bring the files, or choose fewer sets with --sets"
        if reproduction.open_options:
            message += "; give the value behind --"
        raise InputError(message)
    if not options.plan:
        do_steps(reproduction.steps, records, say=say)


def _program(paper: str) -> str:
    return f"scripts.reproduction {paper}"


def _with_values(words: Sequence[str]) -> list[str]:
    """`--plan` alone as `--plan=true`; those in front of the model come last."""
    given: list[str] = []
    for word in words:
        if given and given[-1] in FLAGS:
            is_value = word.lower() in ("true", "false", "yes", "no")
            given[-1] += f"={word}" if is_value else "=true"
            if is_value:
                continue
        given.append(word)
    if given and given[-1] in FLAGS:
        given[-1] += "=true"
    in_front = list(takewhile(lambda word: word.partition("=")[0] in FLAGS, given))
    return [*given[len(in_front) :], *in_front]


if __name__ == "__main__":
    run(main)
