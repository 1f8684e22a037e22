"""Text to words in any script: by NumPy over the bytes of many rows, each different word touched once."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PIECE_BYTES = 1 << 23
"""Bytes of text that are looked at together, but for a single text that has more."""

SHORTEST, LONGEST = 3, 5
"""The lengths of n-grams of characters."""

MARK, LETTER, ALONE = 1, 2, 3
"""What a character is to a word: a mark goes with the letter before; letters of some scripts stand alone."""

UNSPACED = (
    *[(0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF)],  # Thai, Lao, Myanmar, Khmer
    *[(0x3005, 0x3007), (0x3021, 0x3029), (0x3040, 0x30FF), (0x31F0, 0x31FF)],  # kana, and what goes with Han
    *[(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF)],
    *[(0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF)],
)
"""First and last characters of blocks of scripts that are written without spaces."""


class Tokens(NamedTuple):
    """The tokens of rows of text, in order.

    Attributes
    ----------
    rows
        int64 [tokens]: the row of each.
    codes
        int64 [tokens]: which of the different tokens it is.
    words
        The different tokens: text [words].
    """

    rows: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    words: pa.StringArray


def pieces_of(texts: pa.ChunkedArray) -> Iterator[tuple[int, pa.LargeStringArray]]:
    """Yield texts in pieces that depend on the texts only, each with the number of its first row.

    Parameters
    ----------
    texts
        Text [rows]; a missing one is taken as empty.
    """
    whole = pc.fill_null(texts.cast(pa.large_string()), "").combine_chunks()
    ends = np.cumsum(pc.binary_length(whole).to_numpy(zero_copy_only=False))
    begins = 0
    while begins < len(whole):
        before = int(ends[begins - 1]) if begins else 0
        stop = max(begins + 1, int(np.searchsorted(ends, before + PIECE_BYTES, "right")))
        yield begins, whole.slice(begins, stop - begins)
        begins = stop


def tokens_of(texts: pa.LargeStringArray) -> Tokens:
    """Return the words of some rows.

    Texts are taken in the normal form NFKC. A word is as many letters, digits and marks as stand together,
    with case folded; in scripts that are written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar) each
    letter, with the marks that follow it, is a word.

    Parameters
    ----------
    texts
        Text [rows], none missing.

    Examples
    --------
    >>> found = tokens_of(pa.array(["Straße, straße!", "中文 B2"], pa.large_string()))
    >>> [found.words[code].as_py() for code in found.codes], found.rows.tolist()
    (['strasse', 'strasse', '中', '文', 'b2'], [0, 0, 1, 1, 1])
    """
    text, begins, _, is_first = _seen(texts)
    firsts = np.flatnonzero(is_first)
    per_row = np.diff(np.append(np.searchsorted(firsts, begins), len(firsts)))
    # Up to the next word, so that nothing is copied; what follows a word is taken off each different one.
    encoded = _strings(text, np.append(firsts, len(text))).dictionary_encode()
    codes, words = _folded(encoded.indices.to_numpy(), _only_words(encoded.dictionary))
    return Tokens(np.repeat(np.arange(len(texts)), per_row), codes, words)


def lengths_of(texts: pa.LargeStringArray, kind: str) -> npt.NDArray[np.int64]:
    """Return at most how many different tokens of a kind each text has, without telling them apart.

    Parameters
    ----------
    texts
        Text [rows], none missing.
    kind
        "text", "words" or "characters".
    """
    text, begins, is_word, is_first = _seen(texts)
    edges = np.append(begins, len(text))
    words: npt.NDArray[np.int64] = np.diff(np.concatenate([[0], np.cumsum(is_first)])[edges])
    if kind == "characters":
        letters = np.diff(np.concatenate([[0], np.cumsum(is_word)])[edges])  # bytes, 1 to 4 for each letter
        words = (LONGEST - SHORTEST + 1) * letters
    elif kind == "text":
        words = np.maximum(2 * words - 1, 0)
    return words


def n_grams_of(tokens: Tokens) -> Tokens:
    """Return the n-grams of 3 to 5 characters of words, each with a space before and after it.

    Examples
    --------
    >>> found = n_grams_of(tokens_of(pa.array(["ab"], pa.large_string())))
    >>> [found.words[code].as_py() for code in found.codes]
    [' ab', 'ab ', ' ab ']
    """
    padded = [f" {word} " for word in tokens.words.to_pylist()]
    points = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32)
    sizes = np.array(list(map(len, padded)), np.int64)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(points))  # characters to the end of the word
    found, of = [], []
    for length in range(SHORTEST, LONGEST + 1):
        firsts = np.flatnonzero(left >= length)
        grams = np.zeros((len(firsts), LONGEST), np.uint32)
        grams[:, :length] = points[firsts[:, None] + np.arange(length)]
        found.append(grams.view(f"<U{LONGEST}")[:, 0])
        of.append(owners[firsts])
    owner = np.concatenate(of)
    order = np.argsort(owner, kind="stable")
    encoded = pa.array(np.concatenate(found)[order], pa.large_string()).dictionary_encode()
    grams_of_word = np.bincount(owner, minlength=len(sizes))
    begins = np.cumsum(grams_of_word) - grams_of_word
    counts = grams_of_word[tokens.codes]
    places = np.arange(counts.sum()) + np.repeat(begins[tokens.codes] - (np.cumsum(counts) - counts), counts)
    return Tokens(
        np.repeat(tokens.rows, counts),
        encoded.indices.to_numpy().astype(np.int64)[places],
        encoded.dictionary,
    )


Bytes = npt.NDArray[np.uint8]

Flags = npt.NDArray[np.bool_]


def _seen(texts: pa.LargeStringArray) -> tuple[Bytes, npt.NDArray[np.int64], Flags, Flags]:
    """Return the bytes of all texts, where each row begins, which bytes are of words, and which begin one."""
    text, offsets = _bytes(texts)
    if len(text) and text.max() >= 0x80:
        plain = pc.string_is_ascii(texts)
        odd = pc.invert(plain)
        texts = pc.replace_with_mask(texts, odd, pc.utf8_normalize(texts.filter(odd), form="NFKC"))
        text, offsets = _bytes(texts)
    return text, offsets[:-1], *_words_in(text, offsets[:-1])


def _words_in(text: Bytes, begins: npt.NDArray[np.int64]) -> tuple[Flags, Flags]:
    """Return which bytes are of words, and which begin one."""
    if len(text) and text.max() >= 0x80:
        return _words_by_character(text, begins)
    is_word = IS_WORD[text]
    is_first = is_word.copy()
    np.greater(is_word[1:], is_word[:-1], out=is_first[1:])
    inside = begins[begins < len(text)]
    is_first[inside] = is_word[inside]
    return is_word, is_first


def _only_words(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Return words without what stands after them, ASCII letters as small ones."""
    text, offsets = _bytes(texts)
    is_word, _ = _words_in(text, offsets[:-1])
    return _strings(LOWER[text[is_word]], np.concatenate([[0], np.cumsum(is_word)])[offsets])


def _strings(text: Bytes, offsets: npt.NDArray[np.int64]) -> pa.LargeStringArray:
    """Return pieces of text, each from one offset to the next."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def _words_by_character(text: Bytes, begins: npt.NDArray[np.int64]) -> tuple[Flags, Flags]:
    leads = np.flatnonzero((text & 0xC0) != 0x80)
    kinds = _kinds()[np.frombuffer(text.tobytes().decode().encode("utf-32-le"), np.uint32)]
    is_row = np.zeros(len(text) + 1, bool)
    is_row[begins] = True
    starts = is_row[leads]
    starts[0] = True
    word = kinds > 0
    # What a mark goes with: the kind of the last character before it that is no mark.
    last = np.maximum.accumulate(np.where((kinds != MARK) | starts, np.arange(len(kinds)), 0))
    base = kinds[last]
    before = np.concatenate([[0], base[:-1]])
    first = word & (starts | np.concatenate([[True], ~word[:-1]]))
    first |= (kinds == ALONE) | ((kinds == LETTER) & (before == ALONE))
    sizes = np.diff(np.append(leads, len(text)))
    is_first = np.zeros(len(text), bool)
    is_first[leads[first]] = True
    return np.repeat(word, sizes), is_first


def _bytes(texts: pa.LargeStringArray) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the bytes of all texts, and where each begins and the last one ends."""
    _, places, data = texts.buffers()
    offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is None:
        return np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _folded(codes: npt.NDArray[np.int32], words: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Fold the case of words that are not ASCII, and make one of those that are the same."""
    odd = pc.invert(pc.string_is_ascii(words))
    if pc.any(odd).as_py():
        folded = [unicodedata.normalize("NFKC", word.casefold()) for word in words.filter(odd).to_pylist()]
        words = pc.replace_with_mask(words, odd, pa.array(folded, words.type))
    encoded = words.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64)[codes], encoded.dictionary


IS_WORD = np.array([chr(byte).isalnum() and byte < 0x80 for byte in range(256)])
"""Byte -> whether it is an ASCII letter or digit."""

LOWER = np.array([ord(chr(byte).lower()) if byte < 0x80 else byte for byte in range(256)], np.uint8)
"""Byte -> the byte, an ASCII letter as a small one."""


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Return for each character what it is to a word: 0 (no part of one), `MARK`, `LETTER` or `ALONE`."""
    of = {"L": LETTER, "N": LETTER, "M": MARK}
    kinds = np.zeros(0x110000, np.uint8)
    for first, last in ((0, 0x3FFFF), (0xE0000, 0xE01FF)):  # no others are assigned, but for private use
        kinds[first : last + 1] = [
            of.get(unicodedata.category(chr(point))[0], 0) for point in range(first, last + 1)
        ]
    for first, last in UNSPACED:
        some = kinds[first : last + 1]
        some[some == LETTER] = ALONE
    return kinds
