"""SentencePiece files: what protobuf reads of a real one, and hostile ones refused."""

import struct
from pathlib import Path

import pytest
from transformers.utils.sentencepiece_model_pb2_new import ModelProto

from jaxrank.errors import InputError
from jaxrank.text.sentencepiece import read_sentencepiece
from tests.tokenizer_builders import SHIPPED

SPIECE = SHIPPED / "t5" / "spiece.model"


def test_pieces_scores_and_normalisation_are_those_that_protobuf_reads():
    proto = ModelProto.FromString(SPIECE.read_bytes())
    model = read_sentencepiece(SPIECE)
    assert len(model.pieces) == 32000
    assert model.pieces == [(piece.piece, piece.score) for piece in proto.pieces]
    assert model.charsmap == proto.normalizer_spec.precompiled_charsmap


def field(number: int, kind: int, value: bytes) -> bytes:
    return bytes([number << 3 | kind]) + value


def piece(text: bytes, score: bytes = field(2, 5, struct.pack("<f", -1.0))) -> bytes:
    entry = field(1, 2, bytes([len(text)]) + text) + score
    return field(1, 2, bytes([len(entry)]) + entry)


def section(number: int, data: bytes) -> bytes:
    return field(number, 2, bytes([len(data)]) + data)


UNIGRAM = section(2, field(3, 0, b"\x01"))
NORMALIZER = section(3, field(1, 2, b"\x03nfk"))


def test_fields_that_are_not_needed_are_passed_over(tmp_path: Path):
    trainer = field(3, 0, b"\x01") + field(4, 0, b"\xff\x01") + field(9, 1, bytes(8))
    data = piece(b"a") + section(2, trainer) + piece(b"b", b"") + NORMALIZER
    (tmp_path / "m.model").write_bytes(data)
    assert read_sentencepiece(tmp_path / "m.model") == ([("a", -1.0), ("b", 0.0)], None)


BAD = {
    "empty": b"",
    "text": b"#version: 0.2\n",
    "cut off": SPIECE.read_bytes()[:1000],
    "a length beyond the file": field(1, 2, b"\xff\xff\xff\xff\x7f"),
    "an endless number": b"\xff" * 64,
    "a piece that is a number": field(1, 0, b"\x01"),
    "a piece without text": field(1, 2, b"\x00"),
    "a text that is no UTF-8": piece(b"\xff"),
    "a number cut off": field(1, 2, b"\x03" + field(2, 5, b"ab")),
    "another kind of model": piece(b"a") + section(2, field(3, 0, b"\x02")) + NORMALIZER,
    "without pieces": UNIGRAM + NORMALIZER,
    "without normalisation": piece(b"a") + UNIGRAM,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_file_that_is_no_unigram_model_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "spiece.model"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"not a (readable|whole) SentencePiece") as error:
        read_sentencepiece(path)
    assert "\n" not in str(error.value)


def test_a_file_of_many_megabytes_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "spiece.model"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(InputError, match="over 64 MB"):
        read_sentencepiece(path)
