"""python -m jaxrank.encode_documents: read documents once and keep their states for reranking."""

from collections.abc import Sequence

from jaxrank.command_line import run
from jaxrank.options import parse
from jaxrank.state_building.options import EncodeOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Encode documents into a folder of states; or verify, describe or delete what is in one."""
    options = parse(EncodeOptions, "jaxrank.encode_documents", argv, first="action")
    from jaxrank.state_building.run import work_on_states  # late, so that --help is quick

    work_on_states(options, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    run(main)
