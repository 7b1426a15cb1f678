"""The build of PyTorch's rivals: what can be tried of it without nvcc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build_mamba_ssm.sh"


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--archs", "90"], "--archs: unknown option"),
        (["--arch", "sm_90"], "--arch: sm_90; a number such as 90"),
        (["--jobs"], "--jobs: a value is needed"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], said: str):
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_everything_that_is_missing_is_one_line(tmp_path: Path):
    done = run("--sources", str(tmp_path), CUDA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "nvcc" in done.stderr
    assert "mamba_ssm-*.tar.gz" in done.stderr


def test_a_dry_run_builds_nothing_and_shows_the_commands(tmp_path: Path):
    done = run("--dry-run", "--output", str(tmp_path / "wheels"), CUDA_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "pip download --no-deps" in done.stdout
    assert done.stdout.count("pip wheel --no-deps") == 2
    assert not (tmp_path / "wheels").exists()


def test_other_architectures_are_taken_from_the_compilers_command_line(tmp_path: Path):
    compiler = tmp_path / "bin" / "nvcc"
    compiler.parent.mkdir()
    compiler.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    compiler.chmod(0o755)
    flags = ["-O3", "-gencode", "arch=compute_80,code=sm_80", "-gencode"]
    flags += ["arch=compute_90,code=sm_90", "-gencode=arch=compute_75,code=sm_75", "a file.cu"]
    done = subprocess.run(
        [str(SCRIPT.with_name("nvcc_for_one_architecture.sh")), *flags],
        capture_output=True, text=True, check=True,
        env={**os.environ, "REAL_NVCC": str(compiler), "NVCC_ARCHITECTURE": "90"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "-O3", "-gencode", "arch=compute_90,code=sm_90", "a file.cu",
    ]  # fmt: skip
