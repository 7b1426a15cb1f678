import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.groups import Group
from jaxrank.data.tokens.store import MANIFEST_FILE, Filled, fill_tokens, open_token_store
from jaxrank.data.tokens.table import tokenise_groups, tokenise_texts
from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

NAMES = [f"d{number}" for number in range(10)]
TEXTS = {name: f"uric acid {name} " * (place * 3) for place, name in enumerate(NAMES)}
Fill = Callable[..., Filled]


class Recorded(Mapping[str, str]):
    """Texts that remember which of them were asked for, and call `before` each time."""

    def __init__(self, before: Callable[[str], None] = lambda name: None) -> None:
        self.asked: list[str] = []
        self._before = before

    def __getitem__(self, name: str) -> str:
        self._before(name)
        self.asked.append(name)
        return TEXTS[name]

    # Empty to beartype, which would ask for a text to check its type.
    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.fixture(scope="module")
def tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=32))


@pytest.fixture
def fill(tmp_path: Path, tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Fills a store of four texts a shard; texts are read one by one, as shards are written."""
    monkeypatch.setattr("jaxrank.data.tokens.store._TEXTS_PER_SHARD", 4)
    monkeypatch.setattr("jaxrank.text.tokenize._TEXTS_AT_ONCE", 1)

    def fill(
        names: list[str] = NAMES,
        texts: Mapping[str, str] = TEXTS,
        *,
        tokenizer: PairTokenizer = tokenizer,
        source: str = "collection",
    ) -> Filled:
        return fill_tokens(tmp_path, "document", names, texts, tokenizer, source=source)

    return fill


def ids_of(filled: Filled, names: list[str] = NAMES) -> list[list[int]]:
    return [ids.tolist() for ids in filled.tokens.read(filled.tokens.find(names))]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("document-*/shard-*.arrow"))


def test_a_store_gives_what_a_table_in_memory_gives(fill: Fill, tokenizer: PairTokenizer):
    in_memory = tokenise_texts("document", NAMES, TEXTS, tokenizer)
    for filled in (fill(), fill()):
        stored = filled.tokens
        asked = [*reversed(NAMES), "d3"]
        rows, expected = stored.find(asked), in_memory.find(asked)
        for ids, others in zip(stored.read(rows), in_memory.read(expected), strict=True):
            np.testing.assert_array_equal(ids, others)
            assert ids.dtype == np.uint16
        np.testing.assert_array_equal(stored.lengths[rows], in_memory.lengths[expected])
        np.testing.assert_array_equal(stored.is_empty[rows], in_memory.is_empty[expected])
        assert stored.is_empty.any()
        assert (stored.num_tokens, stored.num_bytes) == (in_memory.num_tokens, in_memory.num_bytes)
    with pytest.raises(KeyError, match="absent"):
        stored.find(["d1", "absent"])


def test_ids_of_large_vocabularies_take_four_bytes(
    fill: Fill, tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
):
    small = ids_of(fill(source="small"))
    monkeypatch.setattr(tokenizer, "vocabulary_size", 2**16 + 1)
    large = fill(source="large")
    assert large.tokens.read(np.array([1]))[0].dtype == np.int32
    assert ids_of(large) == small


def test_nothing_is_tokenised_twice(fill: Fill):
    first, second, third = Recorded(), Recorded(), Recorded()
    assert fill(NAMES[2:6], first).num_new == 4
    assert fill(NAMES, second).num_new == 6
    assert fill(NAMES[::-1], third).num_new == 0
    assert first.asked == NAMES[2:6]
    assert second.asked == [*NAMES[:2], *NAMES[6:]]
    assert third.asked == []


def test_an_interruption_costs_one_shard_at_most(fill: Fill, tmp_path: Path):
    def interrupt(name: str) -> None:
        if name == "d7":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(NAMES, Recorded(interrupt))
    assert len(shards(tmp_path)) == 1
    rest = Recorded()
    whole = fill(NAMES, rest)
    assert rest.asked == NAMES[4:]
    assert ids_of(whole) == ids_of(fill(source="another"))


def test_what_a_killed_writer_leaves_is_not_read_and_goes(fill: Fill, tmp_path: Path):
    fill(NAMES[:4])
    (first,) = shards(tmp_path)
    (first.parent / ".shard-00001.arrow.abc.part").write_bytes(b"half")
    (first.parent / "shard-00001.arrow").write_bytes(b"whole, but not in the manifest")
    rest = Recorded()
    fill(NAMES, rest)
    assert rest.asked == NAMES[4:]
    assert not list(first.parent.glob(".*"))
    assert fill().notes == ()


@pytest.mark.parametrize("place", [0.002, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_found_reported_and_mended(fill: Fill, tmp_path: Path, place: float):
    expected = ids_of(fill())
    damaged = shards(tmp_path)[1]
    content = bytearray(damaged.read_bytes())
    content[int(place * len(content))] ^= 4
    damaged.write_bytes(content)
    again = Recorded()
    filled = fill(NAMES, again)
    assert again.asked == NAMES[4:8]
    assert ids_of(filled) == expected
    assert filled.notes == (
        f"{damaged}: damaged or missing; of its 4 texts those asked for are tokenised anew",
    )
    assert fill().notes == ()
    assert not damaged.exists()


def test_a_missing_shard_is_made_again(fill: Fill, tmp_path: Path):
    expected = ids_of(fill())
    shards(tmp_path)[2].unlink()
    filled = fill()
    assert (filled.num_new, len(filled.notes)) == (2, 1)
    assert ids_of(filled) == expected


def test_two_writers_at_once_tokenise_every_text_once(fill: Fill, tmp_path: Path):
    started, results = threading.Event(), []

    def wait_for_the_other(name: str) -> None:
        if name == "d5":
            other.start()
            assert started.wait(10)

    def run_other() -> None:
        started.set()
        results.append(fill(NAMES, Recorded()))

    other = threading.Thread(target=run_other)
    results.append(fill(NAMES[:8], Recorded(wait_for_the_other)))
    other.join()
    assert [filled.num_new for filled in results] == [8, 2]
    assert ids_of(results[1]) == ids_of(fill())
    (manifest,) = tmp_path.glob(f"document-*/{MANIFEST_FILE}")
    assert sum(shard["texts"] for shard in json.loads(manifest.read_text())["shards"]) == 10


def test_names_with_one_hash_are_told_apart(fill: Fill, monkeypatch: pytest.MonkeyPatch):
    expected = ids_of(fill(source="another"))
    for module in ("shard", "stored"):
        monkeypatch.setattr(f"jaxrank.data.tokens.{module}.hash_text", lambda name: 7)
    filled = fill()
    assert ids_of(filled) == expected
    assert filled.tokens.missing(["d2", "x", "d9"]) == ["x"]


def test_whatever_the_ids_depend_on_has_a_folder_of_its_own(
    fill: Fill, tmp_path: Path, bert_tokenizer_folder: Path, neox_tokenizer_folder: Path
):
    bert, neox = load_tokenizer(bert_tokenizer_folder), load_tokenizer(neox_tokenizer_folder)
    fill()
    longer = fill(tokenizer=PairTokenizer(bert, TextConfig(max_length=64)))
    assert max(map(len, ids_of(longer))) == 64
    fill(tokenizer=PairTokenizer(neox, TextConfig("paper-decoder", max_length=64)))
    fill(tokenizer=PairTokenizer(neox, TextConfig("authors-code-decoder", max_length=64)))
    fill(source="another")
    assert len(list(tmp_path.iterdir())) == 5
    # The query's budget cuts pairs, not texts.
    text = TextConfig("paper-decoder", max_length=64, query_length=20)
    assert fill(tokenizer=PairTokenizer(neox, text)).num_new == 0
    assert fill(tokenizer=PairTokenizer(bert, TextConfig(max_length=32))).num_new == 0


def test_a_manifest_that_cannot_be_read_is_refused_with_the_mend(fill: Fill, tmp_path: Path):
    fill()
    (manifest,) = tmp_path.glob(f"document-*/{MANIFEST_FILE}")
    whole = manifest.read_text()
    mend = f"; delete {manifest.parent} and its texts are tokenised anew"
    for content in ("{}", "[]", whole.replace('"format": 1', '"format": 2'), whole[:50]):
        manifest.write_text(content)
        with pytest.raises(InputError, match=r"manifest\.json: not the manifest ") as error:
            fill()
        assert str(error.value).endswith(mend)
    shutil.rmtree(manifest.parent)
    assert fill().num_new == len(NAMES)


def test_a_store_has_all_that_groups_name_and_says_where_it_came_from(
    tmp_path: Path, tokenizer: PairTokenizer
):
    groups = [Group("d0", "d1", ("d2",)), Group("d0", "d3", ("d2", "d1"))]
    sources = {"query": "a", "document": "b"}
    settings = (groups, TEXTS, TEXTS, tokenizer)
    _, notes = open_token_store(tmp_path, *settings, sources=sources)
    assert notes == (
        f"token store {tmp_path}: 1 queries and 3 documents, 0 of them from disk and 4 tokenised "
        "now; it holds 0.0 M tokens, 0 MiB",
    )
    store, notes = open_token_store(tmp_path, *settings, sources=sources)
    assert "4 of them from disk and 0 tokenised now" in notes[0]
    assert store.num_tokens == tokenise_groups(*settings).num_tokens


def test_a_text_that_is_not_there_is_an_error(fill: Fill):
    with pytest.raises(KeyError, match="absent"):
        fill([*NAMES, "absent"])
    assert fill().num_new == 2
