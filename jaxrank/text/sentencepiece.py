"""SentencePiece's `.model` files, read without its library: a protocol buffer of four fields.

The names and numbers of the fields are those of sentencepiece's `sentencepiece_model.proto`. A file
is untrusted: lengths are checked, nothing in it is executed, and what is no unigram model is
refused.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxrank.errors import InputError

# ModelProto: repeated SentencePiece pieces = 1; TrainerSpec trainer_spec = 2;
# NormalizerSpec normalizer_spec = 3. SentencePiece: string piece = 1; float score = 2.
# TrainerSpec: enum model_type = 3. NormalizerSpec: bytes precompiled_charsmap = 2.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE = 1, 2
_MODEL_TYPE, _UNIGRAM = 3, 1
_CHARSMAP = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_FILE = 64 << 20


class SentencePieceModel(NamedTuple):
    """What a tokenizer is built from."""

    pieces: list[tuple[str, float]]
    """Text and score of each piece; its place is its id."""

    charsmap: bytes | None
    """Normalisation of the text, in SentencePiece's own compiled form."""


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a unigram model, such as T5's `spiece.model`.

    Raises:
        InputError: a file that is no such model.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(
            f"{path}: over {_LARGEST_FILE >> 20} MB, too large for a SentencePiece model"
        )
    pieces: list[tuple[str, float]] = []
    trainer: dict[int, int | float | bytes] = {}
    normalizer: dict[int, int | float | bytes] = {}
    try:
        for field, value in _fields(path.read_bytes()):
            if field == _PIECES:
                piece = dict(_fields(_as_bytes(value)))
                pieces.append((_as_bytes(piece[_PIECE]).decode(), float(piece.get(_SCORE, 0.0))))
            elif field == _TRAINER:
                trainer = dict(_fields(_as_bytes(value)))
            elif field == _NORMALIZER:
                normalizer = dict(_fields(_as_bytes(value)))
        charsmap = _as_bytes(normalizer.get(_CHARSMAP, b"")) or None
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        raise InputError(f"{path}: not a readable SentencePiece model") from None
    # Both sections follow the pieces: a file that lacks one was cut off.
    if not pieces or not trainer or not normalizer or trainer.get(_MODEL_TYPE, 1) != _UNIGRAM:
        raise InputError(
            f"{path}: not a whole SentencePiece unigram model; save the tokenizer as tokenizer.json"
        )
    return SentencePieceModel(pieces, charsmap)


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field of one message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value
        elif kind == _BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field ends beyond the file")
            yield tag >> 3, data[position : position + length]
            position += length
        elif kind == _FIXED32:
            yield tag >> 3, struct.unpack_from("<f", data, position)[0]
            position += 4
        elif kind == _FIXED64:
            yield tag >> 3, struct.unpack_from("<d", data, position)[0]
            position += 8
        else:
            raise ValueError(f"field of kind {kind}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _as_bytes(value: int | float | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("bytes are needed")
    return value
