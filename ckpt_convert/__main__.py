"""python -m ckpt_convert import | export | check: checkpoints in and out, and the proof."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, check_apart, check_target, read_json

# What takes seconds is imported late, since Ctrl-C is met only inside `run`.
if TYPE_CHECKING:
    from ckpt_convert.load import LoadedModel

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "medquad-mini"


class _Parser(argparse.ArgumentParser):
    """Complains as every other command does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, do one thing, say what came of it."""
    options = _parser().parse_args(argv)
    from ckpt_convert.load import load, with_text
    from ckpt_convert.save import check_model_target

    if options.command == "check":
        _prepare_check(options)
    else:
        check_model_target(Path(options.target), replace=options.replace)
    loaded = load(
        options.source,
        head=options.head,
        seed=options.seed,
        tokenizer=options.tokenizer,
        max_length=options.max_length,
        allow_pickle=options.allow_pickle,
        base=None if options.command == "check" else options.base,
    )
    if options.template:
        text = dataclasses.replace(loaded.text, template=options.template, query_length=None)
        loaded = with_text(loaded, text, seed=options.seed)
    _describe(options.source, loaded)
    if options.command == "check":
        _check(options, loaded)
    else:
        _write(options, loaded)


def _write(options: argparse.Namespace, loaded: "LoadedModel") -> None:
    from ckpt_convert.save import save, torch_reader

    folder = save(
        options.target,
        config=loaded.config,
        parameters=loaded.parameters,
        tokenizer=loaded.tokenizer,
        text=loaded.text,
        replace=options.replace,
        has_trained_head=not (loaded.fresh or loaded.added_tokens),
        provenance=(f"converted from `{Path(options.source).name}`", *loaded.notes),
    )
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"wrote {folder} ({size:,.0f} MB)")
    if loaded.fresh or loaded.added_tokens:
        print(f"next: train it, with --model.init_from {folder}")
    elif options.command == "import":
        print(f'next: jaxrank.Reranker.from_pretrained("{folder}"), or train from it')
    else:
        print(f"next, in PyTorch: {torch_reader(loaded.config, loaded.text).format(folder=folder)}")


def _prepare_check(options: argparse.Namespace) -> None:
    """Refuse what would else come to light after minutes."""
    from ckpt_convert.certificate import FILE_NAME
    from ckpt_convert.parity import check_size
    from ckpt_convert.weight_files import check_no_adapter, files_of_model

    check_no_adapter(Path(options.source))
    if options.json:
        check_target(options.json)
        model = [path for path in files_of_model(Path(options.source)) if path.name != FILE_NAME]
        check_apart(options.json, {"SRC": model, "--texts": [options.texts]}, option="--json")
    if options.texts is None and not _EXAMPLES.is_dir():
        raise InputError("--texts: name a collection folder, or a file of `query TAB document`")
    if not options.full:
        check_size(options.source, head=options.head, allow_pickle=options.allow_pickle)


def _check(options: argparse.Namespace, loaded: "LoadedModel") -> None:
    from ckpt_convert.parity import certify, read_pairs

    certificate = certify(
        options.source,
        loaded,
        read_pairs(options.texts or _EXAMPLES, limit=options.pairs),
        texts=options.texts or "/".join(_EXAMPLES.parts[-2:]),
        tolerance=options.tolerance,
        allow_pickle=options.allow_pickle,
        progress=True,
    )
    print(certificate.table())
    print(certificate.truncation.summary())
    if path := options.json or _certificate_path(options.source):
        with atomic_open(path) as file:
            json.dump(certificate.as_dict(), file, indent=2)
        print(f"wrote {path}")
    verdict = "PASSED" if certificate.has_passed else "FAILED"
    print(
        f"{verdict}: {certificate.pairs} pairs, {certificate.tokens:,} tokens, largest relative "
        f"difference {certificate.worst:.1e} (allowed {certificate.tolerance:.0e})"
    )
    if not certificate.has_passed:
        sys.exit(1)
    if not _is_ours(options.source):
        print(f"next: python -m ckpt_convert import {options.source} DST")


def _is_ours(source: str) -> bool:
    """Whether the source is a folder that `save` wrote."""
    config = Path(source) / "config.json"
    return config.is_file() and "jaxrank" in read_json(config)


def _certificate_path(source: str) -> Path | None:
    """In the folder itself, unless it is the hub's or may not be written to."""
    from ckpt_convert.certificate import FILE_NAME

    folder = Path(source)
    return folder / FILE_NAME if folder.is_dir() and os.access(folder, os.W_OK) else None


def _describe(source: str, loaded: "LoadedModel") -> None:
    count = sum(value.size for value in loaded.parameters.values())
    print(
        f"{source}: {loaded.config.family}, {loaded.config.backbone.num_layers} layers, "
        f"{count:,} parameters, head {loaded.config.head}, template {loaded.text.template}, "
        f"at most {loaded.text.max_length} tokens"
    )
    for note in loaded.notes:
        print(f"note: {note}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m ckpt_convert", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "import": "read a published checkpoint, write a reranker folder",
        "export": "write a reranker folder that PyTorch libraries read",
        "check": "compare hidden states and scores with PyTorch, layer by layer",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument(
            "source", metavar="SRC", help="model folder, folder of adapters, or hub id"
        )
        if name != "check":
            command.add_argument("target", metavar="DST", help="folder to write")
            command.add_argument(
                "--replace", action="store_true", help="replace an earlier jaxrank model in DST"
            )
            command.add_argument("--base", help="model that SRC's adapters change, if not as named")
        command.add_argument("--head", choices=["linear", "classification"])
        command.add_argument("--tokenizer", help="folder, file or hub id, if SRC holds none")
        command.add_argument("--template", help="prompt template in place of SRC's own")
        command.add_argument("--max-length", type=int, help="longest input in tokens")
        command.add_argument(
            "--allow-pickle",
            action="store_true",
            help="read pytorch_model.bin where SRC has no safetensors (tensors only; no code runs)",
        )
        seed = _whole_number(0, 2**32 - 1)
        command.add_argument("--seed", type=seed, default=0, help="draws a head that SRC lacks")
    check = commands.choices["check"]
    check.add_argument("--texts", help="collection folder, or file of `query TAB document`")
    count = _whole_number(1, 10**9)
    check.add_argument("--pairs", type=count, default=200, help="how many pairs to compare")
    check.add_argument("--tolerance", type=float, default=1e-4, help="largest relative one")
    check.add_argument("--json", help="where to write the certificate; by default SRC/parity.json")
    check.add_argument(
        "--full", action="store_true", help="compare models of over 500M parameters too"
    )
    return parser


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse."""

    def read(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"got {text}; {least} to {most} is needed")
        return number

    read.__name__ = "whole number"  # argparse's word for what int() refuses
    return read


if __name__ == "__main__":
    run(main)
