r"""Kills the command that encodes documents, and flips bits of what it wrote.

    python -m scripts.document_states.kills --scratch /tmp/kills --json kills.json

A small model at a random start reads documents of a collection: once undisturbed; then with
SIGKILLs at random moments, going on after each, after which the store must hold the same bytes. Of
copies of the store single bits are flipped at random places: each must be found by verifying, and
be refused, or do no harm, where every state is read with verification on. A state that differs from
the undisturbed one and is not refused would be scored from in silence: there may be none.

Exit status: 0 all promises kept, 1 one is not.
"""

import argparse
import shutil
import sys
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.files import check_target
from scripts.document_states.bit_flips import flip_often
from scripts.document_states.killed_writer import Encoding, differing_files, kill_often, names
from scripts.document_states.random_models import RandomModel
from scripts.document_states.report import Promise, all_kept, markdown_table, write_report

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Kill, compare, flip, print, write JSON."""
    options = _parse()
    check_target(options.json)
    options.scratch.mkdir(parents=True, exist_ok=True)
    model = options.scratch / "model"
    RandomModel(options.preset, options.length, is_toy=options.toy).save(model)
    encoding = Encoding(
        model, options.collection, options.dtype, options.batch_size, options.shard_bytes
    )
    whole, killed = options.scratch / "undisturbed", options.scratch / "killed"
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    seconds = encoding.finish(whole)
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    kills = kill_often(encoding, killed, whole, options.kills, options.seed)
    differing = differing_files(whole, killed)
    flips = flip_often(whole, options.scratch / "flipped", options.flips, options.seed)
    rows = [
        ("files of the store", str(len(names(whole)))),
        ("kills", str(len(kills.killed_after_s))),
        ("of them before the process had added a file", str(kills.before_first)),
        ("of them with a file half written", str(kills.left_a_part)),
        ("files that differ from the undisturbed ones", str(len(differing))),
        ("bits flipped", str(flips.flipped)),
        ("found by verifying", str(flips.found_by_verify)),
        ("refused on opening or reading", str(flips.refused)),
        ("read to the right states", str(flips.harmless)),
        ("read to wrong states in silence", str(flips.silent)),
    ]
    print(markdown_table(("what", "how many"), rows))
    promises = [
        Promise("kills", len(kills.killed_after_s), options.kills, "at least"),
        Promise("files that differ after the kills", len(differing), 0),
        Promise("flipped bits not found by verifying", flips.flipped - flips.found_by_verify, 0),
        Promise("wrong states read in silence", flips.silent, 0),
    ]  # fmt: skip
    kept = all_kept(promises)
    results = {
        "undisturbed_s": seconds, "kills": vars(kills), "differing": differing, "flips": vars(flips)
    }  # fmt: skip
    write_report(options.json, options, results, promises)
    return 0 if kept else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for stores")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--collection", type=Path, default=ROOT / "examples" / "medquad-mini")
    parser.add_argument("--preset", default="mamba-tiny")
    parser.add_argument("--toy", action="store_true", help="the family's tiny preset")
    parser.add_argument("--length", type=int, default=128, help="most tokens of a document")
    parser.add_argument("--shard_bytes", type=int, default=1 << 20, help="of a file of the store")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    return parser.parse_args()


if __name__ == "__main__":
    run(lambda: sys.exit(main()))
