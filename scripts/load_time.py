"""Prints how long a model takes from a local folder to its first score, and its peak memory.

Called as `python scripts/load_time.py [--models bert-base mamba-130m] [--folder DIR]`. The models
have random weights made by PyTorch (seed 0) at their published sizes. Each row is a fresh process,
timed from its start, so with imports, first with an empty compilation cache, then with the one that
was left. `CPU` is processor time of all threads, which tells a slow program from a busy machine.
Peak memory is the kernel's VmHWM of that process, libraries and all; what they take before any
weight is read is the column `Imports, MB`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOKENIZERS = {"bert-base": "bert-base-uncased", "mamba-130m": "gpt-neox-20b"}

_CHILD = """
import json, sys, time
from pathlib import Path

def since_start():
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / __import__("os").sysconf("SC_CLK_TCK")

def megabytes():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3

import jax, jax.numpy, flax.nnx, transformers
from jaxrank.reranker import Reranker
jax.numpy.zeros(1).block_until_ready()
report = {"imports_s": since_start(), "imports_mb": megabytes()}
model = Reranker.from_pretrained(sys.argv[1])
report |= {"loaded_s": since_start(), "loaded_mb": megabytes()}
score = float(model.predict([(sys.argv[2], sys.argv[3])])[0])
report |= {"scored_s": since_start(), "scored_mb": megabytes(), "cpu_s": time.process_time()}
print(json.dumps({**report, "score": score}))
"""


def make_folder(name: str, folder: Path) -> Path:
    """A reranker's folder of the published size, with a head that counts as trained."""
    import torch
    import transformers

    from ckpt_convert.load import load
    from ckpt_convert.save import save

    torch.manual_seed(0)
    if name == "bert-base":
        config: Any = transformers.BertConfig(num_labels=1)
        model: Any = transformers.BertForSequenceClassification(config)
    else:
        model = transformers.MambaModel(transformers.MambaConfig(num_hidden_layers=24))
    with tempfile.TemporaryDirectory() as source:
        model.save_pretrained(source)
        tokenizer = ROOT / "tests" / "data" / "tokenizers" / TOKENIZERS[name]
        loaded = load(source, tokenizer=tokenizer)
    return save(
        folder,
        config=loaded.config,
        parameters=loaded.parameters,
        tokenizer=loaded.tokenizer,
        text=loaded.text,
    )


def measure(folder: Path, cache: Path) -> dict[str, float]:
    """Seconds and megabytes of one fresh process that scores one pair."""
    from ckpt_convert.parity import read_pairs

    pair = read_pairs(ROOT / "examples" / "medquad-mini", limit=1)[0]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    command = [sys.executable, "-c", _CHILD, str(folder), *pair]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Make each model and print its two rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(TOKENIZERS), default=list(TOKENIZERS))
    parser.add_argument("--folder", type=Path, help="where to make the models, and keep them")
    options = parser.parse_args()
    print(
        "| Model | Cache | Imports, s | Loaded, s | First score, s | CPU, s | Imports, MB ", end=""
    )
    print("| Peak, MB | Weights, MB | Peak / weights |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            folder = (options.folder or Path(temporary)) / name
            if not folder.exists():
                make_folder(name, folder)
            size = (folder / "model.safetensors").stat().st_size / 1e6
            for cache in ("cold", "warm"):
                row = measure(folder, Path(temporary) / "cache" / name)
                print(
                    f"| {name} | {cache} | {row['imports_s']:.1f} | {row['loaded_s']:.1f} "
                    f"| {row['scored_s']:.1f} | {row['cpu_s']:.1f} | {row['imports_mb']:.0f} "
                    f"| {row['scored_mb']:.0f} | {size:.0f} | {row['scored_mb'] / size:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
