"""How often values occur: counts of parts add up; of too many different ones a fair sample is counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.hashing import hashes_of_texts, mixed

MOST_SAMPLED = 1 << 14
"""How many different values are in a sample."""

MOST_NAMED = 1 << 14
"""How many values are still known by name where there are too many to count each."""

LONGEST_NAME = 256
"""The greatest number of bytes of such a name."""


def count(values: pa.ChunkedArray | pa.Array) -> pa.StructArray:
    """Count how often each value occurs.

    Parameters
    ----------
    values
        Values [rows], plain or behind a dictionary. Missing ones are not counted.

    Returns
    -------
    pyarrow.StructArray
        ``values`` (all different) and ``counts`` (int64), in the order of their first occurrence.

    Examples
    --------
    >>> count(pa.array(["u", None, "v", "u"])).to_pylist()
    [{'values': 'u', 'counts': 2}, {'values': 'v', 'counts': 1}]
    """
    if not pa.types.is_dictionary(values.type):
        return pc.value_counts(values.drop_null())
    plain = values.type.value_type
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    found = [pc.value_counts(chunk.drop_null()) for chunk in chunks]
    entries = pa.concat_arrays([pa.array([], plain), *(each.field(0).cast(plain) for each in found)])
    counts = np.concatenate([np.zeros(0, np.int64), *(each.field(1).to_numpy() for each in found)])
    there = pc.is_valid(entries)  # an entry of a dictionary may be missing, and two may be the same
    return _added(entries.filter(there), counts[there.to_numpy(zero_copy_only=False)])


def counts_of(values: pa.Array, counts: pa.Array | npt.NDArray[np.int64]) -> pa.StructArray:
    """Return counts as `count` does, of values that are all different."""
    return pa.StructArray.from_arrays([values, pa.array(counts, pa.int64())], ["values", "counts"])


def most_frequent(counted: pa.StructArray, most: int | None = None) -> pa.StructArray:
    """Return the counts of the most frequent values, equally frequent ones in their own order.

    Parameters
    ----------
    counted
        What `count` returned.
    most
        How many; `MOST_NAMED` by default. As names these, values of more than `LONGEST_NAME` bytes are then
        left out.

    Examples
    --------
    >>> most_frequent(count(pa.array(["v", "u", "w", "w"])), 2).field(0).to_pylist()
    ['w', 'u']
    """
    if most is None and not pa.types.is_integer(counted.field(0).type):
        counted = counted.filter(pc.less_equal(pc.binary_length(counted.field(0)), LONGEST_NAME))
    table = pa.table({"values": counted.field(0), "counts": counted.field(1)})
    order = pc.sort_indices(table, sort_keys=[("counts", "descending"), ("values", "ascending")])
    return counted.take(order[: MOST_NAMED if most is None else most])


def add(a: pa.StructArray, b: pa.StructArray) -> pa.StructArray:
    """Return the counts of the rows of both.

    Parameters
    ----------
    a, b
        What `count` returned. Values of two types are counted in one that holds both (see `in_common`).
    """
    if not len(a) or not len(b):
        return a if len(a) else b
    values = pa.concat_arrays(in_common(a.field(0), b.field(0)))
    return _added(values, np.concatenate([a.field(1).to_numpy(), b.field(1).to_numpy()]))


def sample(
    integers: pa.ChunkedArray | pa.Array, counts: npt.NDArray[np.int64] | None = None
) -> pa.StructArray:
    """Choose the integers with the smallest hashes: the same ones in whatever order and parts they come.

    These are what a k-minimum-values sketch keeps (Bar-Yossef et al., "Counting distinct elements in a data
    stream", 2002). Whichever is among the smallest in the end was so in every part, so its count is exact.

    Parameters
    ----------
    integers
        Values, none missing.
    counts
        How often each of them occurs; once each by default.

    Returns
    -------
    pyarrow.StructArray
        As of `count`, with the hashes (uint64, ascending) in the place of the values, at most `MOST_SAMPLED`.
    """
    return sample_hashes(hashes_of(integers), np.ones(len(integers), np.int64) if counts is None else counts)


def sample_texts(
    texts: pa.ChunkedArray | pa.Array, counts: npt.NDArray[np.int64] | None = None
) -> pa.StructArray:
    """Return what `sample` returns, of text."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    hashes = hashes_of_texts(whole, "")
    return sample_hashes(hashes, np.ones(len(whole), np.int64) if counts is None else counts)


def sample_counted(counted: pa.StructArray | None) -> pa.StructArray | None:
    """Return a sample of integers or text that were counted, and None for anything else."""
    if counted is None:
        return None
    values, counts = counted.field(0), counted.field(1).to_numpy()
    if pa.types.is_integer(values.type):
        return sample(values, counts)
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    return sample_texts(values, counts) if is_text else None


def add_samples(a: pa.StructArray, b: pa.StructArray) -> pa.StructArray:
    """Return the sample of the rows of both, from what `sample` returned for each."""
    hashes, counts = (np.concatenate([each.field(at).to_numpy() for each in (a, b)]) for at in (0, 1))
    return sample_hashes(hashes, counts)


def sample_hashes(hashes: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> pa.StructArray:
    """Return what `sample` returns, from hashes of any values and how often each occurs."""
    order = np.argsort(hashes)
    hashes = hashes[order]
    is_first = np.ones(len(hashes), bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    begins = np.flatnonzero(is_first)
    sums = np.add.reduceat(counts[order], begins)
    return counts_of(pa.array(hashes[begins][:MOST_SAMPLED]), pa.array(sums[:MOST_SAMPLED]))


def hashes_of(integers: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64]:
    """Return a hash of each integer: `steepest.data.hashing.mixed`, which maps no two to one.

    Examples
    --------
    >>> hashes_of(pa.array([0, 1])).tolist()
    [16294208416658607535, 10451216379200822465]
    """
    wide = integers if pa.types.is_uint64(integers.type) else integers.cast(pa.int64())
    return mixed(np.asarray(wide).view(np.uint64))


def in_common(
    a: pa.ChunkedArray | pa.Array, b: pa.ChunkedArray | pa.Array
) -> tuple[pa.ChunkedArray | pa.Array, pa.ChunkedArray | pa.Array]:
    """Return plain values of two types in one type that holds both.

    Examples
    --------
    >>> [each.type for each in in_common(pa.array([1], pa.int8()), pa.array([1.5]))]
    [DataType(double), DataType(double)]
    """
    if a.type == b.type:
        return a, b
    common = pa.float64()
    if all(pa.types.is_integer(each.type) for each in (a, b)):
        common = _common_integer(a, b)
    elif any(pa.types.is_large_string(each.type) for each in (a, b)):
        common = pa.large_string()
    return a.cast(common, safe=False), b.cast(common, safe=False)


def _common_integer(a: pa.ChunkedArray | pa.Array, b: pa.ChunkedArray | pa.Array) -> pa.DataType:
    """Return a type of integers that holds both, or float64 where there is none."""
    bounds = [pc.min_max(each).as_py() for each in (a, b)]
    if max(each["max"] for each in bounds) < 1 << 63:
        return pa.int64()
    return pa.uint64() if min(each["min"] for each in bounds) >= 0 else pa.float64()


def _added(values: pa.Array, counts: npt.NDArray[np.int64]) -> pa.StructArray:
    """Add the counts of values that occur more than once among them."""
    encoded = values.dictionary_encode()
    places = encoded.indices.to_numpy()
    sums = np.bincount(places, weights=counts, minlength=len(encoded.dictionary))  # exact up to 2**53 rows
    return counts_of(encoded.dictionary, pa.array(sums.astype(np.int64)))
