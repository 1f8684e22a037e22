"""Files as one source of rows."""

from __future__ import annotations

import collections
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from steepest.data.columnar import read_columnar
from steepest.data.files import find_files
from steepest.data.formats import Part, is_table, open_part
from steepest.data.json_text import LateColumn
from steepest.data.judging import Judging
from steepest.data.kinds import TYPES, common_type, converted, in_type, kind_of, likeliest, likeness
from steepest.data.rows import Reconsidered, RowSource, Stretch, chosen_columns
from steepest.data.text import TextPart
from steepest.errors import SteepestError, nearest


@dataclass(frozen=True)
class FileSource(RowSource):
    """The rows of files, one file after the other.

    Parameters
    ----------
    parts
        The opened files.
    schema
        The columns in the order of the first file, and the types that hold the values of all files as far as
        known: a column of whole numbers in text may hold decimals later.
    keys
        For each part its columns that are not in the file but in the names of its folders, and their value.
    kinds
        Column of text files -> its kind, as far as known.
    fixed
        The columns whose kind a pass must not change.
    drop
        The columns that are left out.
    max_rejected
        The share of rows that may be unusable.
    """

    parts: tuple[Part, ...]
    schema: pa.Schema
    keys: tuple[dict[str, pa.Scalar], ...]
    kinds: Mapping[str, str]
    fixed: frozenset[str]
    drop: tuple[str, ...]
    max_rejected: float

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the files."""
        return tuple(part.file.name for part in self.parts)

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """The number of rows; None where it is unknown without reading all."""
        counts = [part.rows for part in self.parts if part.rows is not None]
        return sum(counts) if len(counts) == len(self.parts) else None

    def fingerprint(self) -> str | None:
        """Return a digest of the files' names, sizes, times and places, and of the columns left out.

        Returns
        -------
        str or None
            None if a file comes from where nothing tells whether it changed.

        Raises
        ------
        SteepestError
            If a file changed since it was opened.
        """
        for part in self.parts:
            part.file.require_unchanged()
        stamps = [part.file.stamp for part in self.parts]
        columns = [self.schema.names, sorted(self.drop)]
        return None if None in stamps else hashlib.sha256(repr((stamps, columns)).encode()).hexdigest()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says.

        A row of a text file is rejected if a value in any column that is not left out is not of its column's
        kind, so that each pass has the same rows, whatever columns it asks for.

        Raises
        ------
        SteepestError
            If a file changes or is broken; and at the end of a pass over all rows, if there were none, a
            column mixes types, or too many were rejected.
        Reconsidered
            At the end of a pass over all rows, if they show that a column of a text file was wrongly judged
            by its first rows; in JSON lines, as soon as a line has a column that none had before.
        """
        chosen = chosen_columns(self.schema, columns)
        judging = Judging(dict(self.kinds), self.fixed, self.max_rejected)
        judges = first == 0
        for part, keys in zip(self.parts, self.keys, strict=True):
            part.file.require_unchanged()
            before = judging.rows
            with part.file.reading(part.called):
                try:
                    for stretch in _read(part, chosen, first, keys, judging):
                        yield stretch._replace(rows=self._unified(stretch.rows, chosen))
                except LateColumn as late:
                    raise self._with_column(part, late) from None
            part.file.require_unchanged()
            first = max(0, first - (judging.rows - before))
        if judges:
            self._conclude(judging)

    def _unified(self, rows: pa.Table, chosen: Sequence[str]) -> pa.Table:
        """Return the chosen columns, each in the type of the schema if that holds its values."""
        columns = []
        for name in chosen:
            column, wanted = rows[name], self.schema.field(name).type
            holds = column.type != wanted and common_type([column.type, wanted]) == wanted
            columns.append(in_type(column, wanted) if holds else column)
        return pa.table(columns, names=list(chosen))

    def _conclude(self, judging: Judging) -> None:
        """Raise what follows from a pass over all rows, if anything does."""
        wrong, message = judging.verdict()
        if wrong:
            schema = pa.schema(
                [(field.name, TYPES.get(wrong.get(field.name, ""), field.type)) for field in self.schema]
            )
            kinds = {**self.kinds, **wrong}
            source = replace(self, schema=schema, kinds=kinds, fixed=self.fixed | wrong.keys())
            raise Reconsidered(source, message)
        if judging.rows == 0:
            raise no_rows(self.names[0])

    def _with_column(self, part: Part, late: LateColumn) -> Exception:
        """Return what follows from a column that no line of a file had before."""
        if any(not isinstance(each, TextPart) or each.called != part.called for each in self.parts):
            return SteepestError(
                f"{part.file.name}, line {late.line}: a column {late.name!r} that the other files lack.",
                hint="Give the files the same columns.",
            )
        added = pa.field(late.name, pa.null())
        parts = tuple(
            replace(each, names=(*each.names, late.name), schema=each.schema.append(added))
            for each in self.parts
        )
        message = f"{part.file.name}, line {late.line}: a column {late.name!r} that no line had before."
        return Reconsidered(replace(self, parts=parts, schema=self.schema.append(added)), message)


def no_rows(name: str) -> SteepestError:
    """Return the error about files that have columns only."""
    return SteepestError(f"{name} has column names but no rows.", hint="Name a file that has rows.")


def open_files(
    patterns: Sequence[str], drop: Sequence[str], columns: Sequence[str] | None, max_rejected: float
) -> FileSource:
    """Open files as one source, as `steepest.data.source.open_source` says."""
    files = find_files(patterns, is_table)
    parts = tuple(open_part(file, columns, drop) for file in files)
    keys = _keys(parts, columns, drop)
    names = [[*part.schema.names, *own] for part, own in zip(parts, keys, strict=True)]
    everything = [{*part.names, *part.file.keys} for part in parts]
    for part, known in zip(parts, everything, strict=True):
        if missing := next((name for name in columns or () if name not in known), None):
            raise SteepestError(f"{part.file.name} has no column {missing!r}.", hint=nearest(missing, known))
    for part, own in zip(parts, names, strict=True):
        _require_same_columns(parts[0].file.name, names[0], part.file.name, own)
    if not names[0]:
        raise SteepestError(f"{parts[0].file.name} has no column left.", hint="Leave fewer columns out.")
    anywhere = dict.fromkeys(name for part in parts for name in (*part.names, *part.file.keys))
    if unknown := next((name for name in drop if name not in anywhere), None):
        raise SteepestError(
            f"{parts[0].file.name} has no column {unknown!r} to leave out.", hint=nearest(unknown, anywhere)
        )
    stated = _stated(parts, keys)
    kinds = {name: kind for name in names[0] if (kind := stated.get(name) or _guess(parts, name))}
    schema = pa.schema([(name, _type(parts, keys, name, kinds.get(name))) for name in names[0]])
    source = FileSource(parts, schema, keys, kinds, frozenset(stated), tuple(drop), max_rejected)
    if source.rows == 0:
        raise no_rows(parts[0].file.name)
    return source


def _read(
    part: Part, chosen: Sequence[str], first: int, keys: dict[str, pa.Scalar], judging: Judging
) -> Iterator[Stretch]:
    if isinstance(part, TextPart):
        yield from part.read(first, judging)
    else:
        judging.rows += yield from read_columnar(part, chosen, first, keys)


def _keys(
    parts: Sequence[Part], columns: Sequence[str] | None, drop: Sequence[str]
) -> tuple[dict[str, pa.Scalar], ...]:
    """Return the columns that are in the names of each file's folders: numbers or dates if all values are."""
    found = []
    for part in parts:
        outside = part.file.keys.keys() - set(part.names)
        found.append([key for key in part.file.keys if key in outside and key not in drop])
    texts = collections.defaultdict(list)
    for part, own in zip(parts, found, strict=True):
        for key in own:
            texts[key].append(part.file.keys[key])
    typed: dict[str, Iterator[Any]] = {}
    for key, values in texts.items():
        column = pa.chunked_array([pa.array(values, pa.string())])
        kind = likeliest(likeness(column, ("numbers", "dates")), 1.0)
        typed[key] = iter(converted(kind, column)[0] if kind not in ("text", None) else column)
    return tuple(
        {key: value for key in own for value in [next(typed[key])] if columns is None or key in columns}
        for own in found
    )


def _stated(parts: Sequence[Part], keys: Sequence[dict[str, pa.Scalar]]) -> dict[str, str]:
    """Return the kinds of columns that a file with types states.

    Raises
    ------
    SteepestError
        If two files state types that do not go together.
    """
    kinds: dict[str, str] = {}
    first: dict[str, tuple[str, pa.DataType]] = {}
    for part, own in zip(parts, keys, strict=True):
        if isinstance(part, TextPart):
            continue
        types = {**{field.name: field.type for field in part.schema}, **{key: own[key].type for key in own}}
        for name, found in types.items():
            file, other = first.setdefault(name, (part.file.name, found))
            together = common_type([other, found])
            if together is None:
                raise _mixed_files(name, file, other, part.file.name, found)
            first[name] = (file, together)
            if kind := kind_of(together):
                kinds[name] = kind
    return kinds


def _guess(parts: Sequence[Part], name: str) -> str | None:
    """Return the kind of a column by the first rows of the text files."""
    total: collections.Counter[str] = collections.Counter()
    for part in parts:
        if isinstance(part, TextPart):
            total.update(part.votes.get(name, {}))
    return likeliest(total)


def _type(
    parts: Sequence[Part], keys: Sequence[dict[str, pa.Scalar]], name: str, kind: str | None
) -> pa.DataType:
    """Return the type that holds a column's values in all files, as far as known."""
    types = []
    for part, own in zip(parts, keys, strict=True):
        found = own[name].type if name in own else part.schema.field(name).type
        types.append(TYPES.get(kind or "", found) if kind_of(found) not in (kind, None) else found)
    return common_type(types) or types[0]


def _mixed_files(
    name: str, file: str, found: pa.DataType, other_file: str, other: pa.DataType
) -> SteepestError:
    """Return the error about a column whose types in two files do not go together."""
    kinds = [kind_of(found), kind_of(other)]
    if kinds[0] == kinds[1]:
        kinds = [f"values of the type {each}" for each in (found, other)]
    return SteepestError(
        f"column {name!r} mixes types: it holds {kinds[0]} in {file}, but {kinds[1]} in {other_file}.",
        hint=f"Write it alike, or leave the column out with --drop {shlex.quote(name)}.",
    )


def _require_same_columns(first: str, expected: Sequence[str], file: str, names: Sequence[str]) -> None:
    """Raise SteepestError unless two files have the same columns, in any order."""
    lacks = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if lacks or extra:
        says = [f"lacks {', '.join(map(repr, lacks[:5]))}"] if lacks else []
        says += [f"also has {', '.join(map(repr, extra[:5]))}"] if extra else []
        raise SteepestError(
            f"{file} differs from {first} in its columns: it {' and '.join(says)}.",
            hint="Give the files the same columns, or leave a column out with --drop.",
        )
