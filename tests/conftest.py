"""Strict settings for all tests: rank promotion raises, annotations are checked, JAX on CPU."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # cold, as on a new machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from jaxtyping import install_import_hook

# Checks every shape and type annotation of the two packages at run time; production pays nothing.
_hook = install_import_hook(["jaxrank", "ckpt_convert"], "beartype.beartype")

import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Here and not beside them, since other tests import them too, and it must come first.
pytest.register_assert_rewrite(
    "tests.families.comparison",
    "tests.families.encoder_decoder",
    "tests.families.learning",
    "tests.families.packed",
    "tests.families.suite",
)

# A shell that runs the tests in the background has Ctrl-C ignored, by their processes too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests too")


def pytest_configure(config: pytest.Config) -> None:
    """Without the slow tests, compile with hardly any optimisation: arrays are small, run once."""
    if not config.getoption("--all"):
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for the commands that tests start


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: runs with --all"))


@contextmanager
def _compiling_fully() -> Iterator[None]:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def full_compilation() -> Iterator[None]:
    """Compile what a test runs as users do, also where the slow tests are left out."""
    with _compiling_fully():
        yield


@pytest.fixture(scope="module")
def full_compilation_of_module() -> Iterator[None]:
    """The same for all that a module runs, its own fixtures too."""
    with _compiling_fully():
        yield


@pytest.fixture(scope="session")
def medquad_mini() -> Path:
    """The collection folder that ships with the project."""
    return ROOT / "examples" / "medquad-mini"


@pytest.fixture(scope="session")
def bert_tokenizer_folder() -> Path:
    """bert-base-uncased's real vocabulary."""
    return ROOT / "tests" / "data" / "tokenizers" / "bert-base-uncased"


@pytest.fixture(scope="session")
def neox_tokenizer_folder() -> Path:
    """GPT-NeoX-20B's real tokenizer, which Pythia and Mamba use."""
    return ROOT / "tests" / "data" / "tokenizers" / "gpt-neox-20b"
