"""Prebuilt indexes by name; none is downloaded here."""

import json
import zipfile
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.retrieval.lucene import Lucene
from jaxrank.retrieval.lucene_index import build_index
from jaxrank.retrieval.lucene_java import anserini_jar, java_class
from jaxrank.retrieval.lucene_prebuilt import check_name, fetch_prebuilt, prebuilt_names
from tests.retrieval.small_collection import write_collection


@pytest.mark.parametrize(
    "name",
    ["msmarco-v1-doc", "msmarco-v1-doc-slim", "msmarco-v1-passage", "beir-v1.0.0-scifact.flat"],
)
def test_indexes_of_the_papers_collections_are_known(name: str) -> None:
    check_name(name)


def test_indexes_that_are_not_of_plain_words_are_left_out() -> None:
    names = prebuilt_names()
    assert len(names) > 60
    assert not [name for name in names if "multifield" in name or "unicoil" in name]
    assert not [name for name in names if "splade" in name or "hnsw" in name]


@pytest.mark.parametrize(
    ("name", "advice"),
    [("msmarco-v1-dok", r"nearest: msmarco-v1-doc,"), ("zzz", r"e\.g\. msmarco")],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, advice: str) -> None:
    with pytest.raises(InputError, match=rf"index '{name}'.*{advice}.*write \./{name}"):
        fetch_prebuilt(name)


def test_an_index_in_anserinis_cache_is_not_downloaded_again(tmp_path: Path) -> None:
    built = tmp_path / "built"
    build_index(write_collection(tmp_path / "c", {"d1": "asthma"}), built, threads=1)
    with zipfile.ZipFile(anserini_jar()) as jar:
        (entry,) = json.loads(jar.read("prebuilt-indexes/misc-inverted.json"))
    cached = tmp_path / "cache" / f"{entry['filename'].removesuffix('.tar.gz')}.{entry['md5']}"
    cached.parent.mkdir()
    built.rename(cached)
    system = java_class("java.lang.System")
    system.setProperty("anserini.index.cache", str(cached.parent))
    try:
        folder = fetch_prebuilt(entry["name"])
    finally:
        system.clearProperty("anserini.index.cache")
    assert folder == cached
    assert len(Lucene(folder)) == 1
