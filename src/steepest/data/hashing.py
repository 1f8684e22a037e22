"""Hashes of values: the same on every machine and in every run, others for each column."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]


def hashes_of_texts(texts: pa.Array, column: str) -> Hashes:
    """Return a hash of each text: SipHash-2-4 of its UTF-8 bytes, as pandas computes it.

    The key is made of the column's name (BLAKE2b, 8 bytes, as 16 hexadecimal digits), so that values that
    share a place in one column need not do so in another.

    Parameters
    ----------
    texts
        Text [texts], none missing.
    column
        The name of the column that they stand in.

    Returns
    -------
    numpy.ndarray
        uint64 [texts].

    Examples
    --------
    >>> hashes_of_texts(pa.array(["u", "v"]), "merchant").tolist()
    [5356539605263065207, 4670617369965791483]
    """
    from pandas.util import hash_array

    key = hashlib.blake2b(column.encode(), digest_size=8).hexdigest()
    values = np.asarray(texts.to_numpy(zero_copy_only=False), object)
    return hash_array(values, "utf8", key, categorize=False)


def mixed(numbers: Hashes) -> Hashes:
    """Return a hash of each number: splitmix64 (Steele, Lea and Flood, 2014), which maps no two to one.

    Examples
    --------
    >>> mixed(np.array([0, 1], np.uint64)).tolist()
    [16294208416658607535, 10451216379200822465]
    """
    hashed = numbers + np.uint64(0x9E3779B97F4A7C15)
    hashed ^= hashed >> np.uint64(30)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    hashed ^= hashed >> np.uint64(27)
    hashed *= np.uint64(0x94D049BB133111EB)
    hashed ^= hashed >> np.uint64(31)
    return hashed


def places_of(hashes: Hashes, bits: int) -> npt.NDArray[np.int32]:
    """Return hashes as places: their lowest bits.

    Examples
    --------
    >>> places_of(np.array([5, 2**40 + 9], np.uint64), 3).tolist()
    [5, 1]
    """
    return (hashes & np.uint64((1 << bits) - 1)).astype(np.int32)


def places_of_pairs(first: Hashes, second: Hashes, bits: int) -> npt.NDArray[np.int32]:
    """Return places for pairs of what was hashed: the lowest bits of mixed(first) + second.

    Such a sum of two tables (Pătraşcu and Thorup, "The power of simple tabulation hashing", 2012) needs no
    further mixing.

    Examples
    --------
    >>> one, other = np.array([5], np.uint64), np.array([7], np.uint64)
    >>> places_of_pairs(one, other, 10).tolist(), places_of_pairs(other, one, 10).tolist()
    ([865], [476])
    """
    return places_of(mixed(first) + second, bits)
