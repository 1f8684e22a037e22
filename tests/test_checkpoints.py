"""Checkpoints on disk: whole or refused, few, small, and never a step behind their history."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from expecting import fails
from steepest import checkpoints
from steepest.checkpoints import Checkpoints
from steepest.descent.history import History, Steps
from steepest.descent.schedules import PlateauState
from steepest.descent.standing import Standing, Totals
from steepest.descent.state import start
from steepest.descent.stopping import Best, Watched

DRAWS = np.random.default_rng(0)


def beginning(size: int = 3) -> Standing:
    """A descent before its first step, whose rule has counts, empty states and random keys."""
    parameters = {"a": jnp.zeros(size), "b": [jnp.zeros((2, 0), jnp.bfloat16), jnp.zeros((), jnp.bfloat16)]}
    rule = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.identity(), optax.adam(0.1))
    return Standing(start(parameters, rule.init(parameters)), best=Best(parameters=parameters))


def draw(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(int(DRAWS.integers(99)))
    return jnp.asarray(DRAWS.normal(size=leaf.shape) * 9).astype(leaf.dtype)


def record(history: History, steps: int) -> None:
    history.add(
        Steps(np.full(steps, 1), *DRAWS.normal(size=(2, steps)).astype(np.float32), DRAWS.random(steps))
    )


def further(standing: Standing, steps: int, epoch_ends: bool = False) -> Standing:
    """Where a descent stands some steps later, with other numbers everywhere."""
    history = standing.history
    record(history, steps)
    if epoch_ends:
        figures = {"epoch": standing.epoch + 1, "loss": float(DRAWS.random()), "seconds": float("nan")}
        history.epochs.append(figures)
    state = jax.tree.map(draw, standing.state)
    return replace(
        standing,
        state=state,
        epoch=standing.epoch + epoch_ends,
        window=0 if epoch_ends else standing.window + 1,
        totals=Totals(float(DRAWS.random()), 2.0, 3, 4, float("inf")),
        watched=Watched(float(DRAWS.random()), 2),
        plateau=PlateauState(0.1, float("inf"), 3),
        best=Best(float(DRAWS.random()), 4, 1, jax.tree.map(draw, state.parameters)),
        stopped='a "word" …',
        seconds=float(DRAWS.random()),
        recorded=len(history),
    )


def content(standing: Standing):
    """Everything that a standing is, in a form that can be compared."""
    trees = (standing.state, standing.best.parameters)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(trees)]
    numbers = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(trees)
    ]
    steps = standing.history.steps(0, standing.recorded) if standing.recorded else ()
    others = replace(standing, state=None, history=None, best=standing.best._replace(parameters=None))
    return (
        str(jax.tree.structure(trees)),
        [
            (path, str(leaf.dtype), np.asarray(leaf).tobytes())
            for path, leaf in zip(paths, numbers, strict=True)
        ],
        [(str(column.dtype), column.tobytes()) for column in steps],
        repr(standing.history.epochs[: standing.epoch]),
        repr(others),
    )


def newest(
    folder: Path, said: list[str] | None = None, facts: dict | None = None, size: int = 3
) -> Standing | None:
    return Checkpoints(folder, facts or {}).newest(beginning(size), (said if said is not None else []).append)


def opened(folder: Path, **settings) -> Checkpoints:
    found = Checkpoints(folder, **settings)
    assert found.newest(beginning(), lambda _: None) is None
    return found


def names(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def test_all_comes_back(tmp_path) -> None:
    saved = opened(tmp_path / "new" / "folder")
    standing = beginning()
    for steps, epoch_ends in ((3, False), (2, True), (0, True), (7, False)):
        standing = further(standing, steps, epoch_ends)
        saved.save(standing)
        assert content(newest(saved.folder)) == content(standing)
    assert names(saved.folder, "checkpoint*") == [
        "checkpoint-000003.safetensors",
        "checkpoint-000004.safetensors",
    ]


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_killed_process_did_not_remove_is_removed(tmp_path, monkeypatch, killed) -> None:
    saved, standing = opened(tmp_path), beginning()
    for steps in (3, 5, 1):
        standing = further(standing, steps, epoch_ends=True)
        if killed:
            monkeypatch.setattr(saved, "_remove_others", lambda: None)
        saved.save(standing)
    assert len(names(tmp_path, "checkpoint*")) == (3 if killed else 2)
    assert content(newest(tmp_path)) == content(standing)
    assert names(tmp_path, "checkpoint*") == [
        "checkpoint-000002.safetensors",
        "checkpoint-000003.safetensors",
    ]
    assert len(names(tmp_path, "history*")) == 2
    (tmp_path / "checkpoint-000003.safetensors").write_bytes(b"torn")
    assert newest(tmp_path).epoch == 2, "the one before is as whole as ever"


def test_nothing_is_recorded_yet(tmp_path) -> None:
    """As when the rows of the first window have no weight; nor is there a best epoch."""
    standing = replace(beginning(), window=1)
    opened(tmp_path).save(standing)
    assert content(newest(tmp_path)) == content(standing)
    assert names(tmp_path) == ["checkpoint-000001.safetensors"]


def test_a_standing_is_saved_as_it_was_while_its_history_grows(tmp_path) -> None:
    standing = further(beginning(), 5, epoch_ends=True)
    expected = content(standing)
    further(standing, 4, epoch_ends=True)
    opened(tmp_path).save(standing)
    found = newest(tmp_path)
    assert content(found) == expected
    assert (len(found.history), len(found.history.epochs)) == (5, 1)


@pytest.mark.parametrize("first", range(6))
def test_any_stretch_of_the_history(first) -> None:
    history = History([Steps(*[np.arange(3)] * 4), Steps(*[np.arange(3, 5)] * 4)])
    for last in range(first, 6):
        assert history.steps(first, last).loss.tolist() == list(range(5))[first:last]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_however_it_is_cut_the_history_comes_back(tmp_path_factory, saves) -> None:
    folder = tmp_path_factory.mktemp("cut")
    saved, standing = opened(folder), beginning()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "LONGEST_PART", 64)
        for steps, epoch_ends, anew in saves:
            standing = further(standing, steps + (not standing.recorded), epoch_ends)
            saved.save(standing)
            found = newest(folder)
            assert content(found) == content(standing)
            if anew:  # as a process does that goes on
                saved = Checkpoints(folder)
                standing = saved.newest(beginning(), lambda _: None)


def test_parts_are_few_and_a_checkpoint_is_small(tmp_path, monkeypatch) -> None:
    """512 saves of 10 steps: a step is written once for each doubling, not once for each save."""
    written, write_aside = [], checkpoints.write_aside

    def count(aside, arrays, notes):
        written.append(len(arrays.get("loss", ())))
        return write_aside(aside, arrays, notes)

    monkeypatch.setattr(checkpoints, "write_aside", count)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    saved, standing = opened(tmp_path), beginning()
    for _ in range(512):
        standing = further(standing, 10)
        saved.save(standing)
        assert len(names(tmp_path, "history*")) <= 2 * 10
    assert sum(written) <= 5120 * 10
    assert len(names(tmp_path, "checkpoint*")) == 2
    assert content(newest(tmp_path)) == content(standing)


def test_long_parts_are_left_as_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "LONGEST_PART", 20)
    saved, standing = opened(tmp_path), beginning()
    for _ in range(16):
        standing = further(standing, 10)
        saved.save(standing)
    parts = saved._kept[-1][1]
    assert [part.last_step - part.first_step for part in parts] == [20] * 8
    assert content(newest(tmp_path)) == content(standing)


# ---- damage


@pytest.fixture
def pair(tmp_path):
    """Two checkpoints whose histories are parts of their own, and where each stands."""
    saved, standings = opened(tmp_path), [further(beginning(), 9)]
    saved.save(standings[0])
    standings.append(further(standings[0], 2))
    saved.save(standings[1])
    assert len(names(tmp_path)) == 4
    return tmp_path, standings


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 2000, -1])
def test_a_torn_checkpoint_is_noticed(pair, kept) -> None:
    folder, (before, _) = pair
    path = folder / "checkpoint-000002.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    said = []
    assert content(newest(folder, said)) == content(before)
    assert said == [
        f"The checkpoint {path} can't be used: {path.name} is torn or altered: its checksum is another."
    ]


def test_any_altered_byte_is_noticed(pair) -> None:
    folder, (before, _) = pair
    path = folder / "checkpoint-000002.safetensors"
    whole = path.read_bytes()
    places = sorted({*range(0, len(whole), 37), *range(120), len(whole) - 1})
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert newest(folder).recorded == before.recorded, place


@pytest.mark.parametrize("how", ["missing", "altered", "of another"])
def test_a_damaged_history_is_noticed(pair, how) -> None:
    folder, (before, _) = pair
    saved = Checkpoints(folder)
    saved.newest(beginning(), lambda _: None)
    first, second = (folder / part.name for part in saved._kept[-1][1])
    if how == "missing":
        second.unlink()
    elif how == "altered":
        whole = second.read_bytes()
        second.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        second.write_bytes(first.read_bytes())
    said = []
    assert content(newest(folder, said)) == content(before)
    (sentence,) = said
    assert second.name in sentence


def test_the_descent_goes_on_from_the_one_before(pair) -> None:
    folder, _ = pair
    path = folder / "checkpoint-000002.safetensors"
    path.write_bytes(b"")
    saved = Checkpoints(folder)
    standing = further(saved.newest(beginning(), lambda _: None), 3)
    saved.save(standing)
    assert names(folder, "checkpoint*") == ["checkpoint-000001.safetensors", "checkpoint-000003.safetensors"]
    said = []
    assert content(newest(folder, said)) == content(standing)
    assert not said


def test_none_is_whole(pair) -> None:
    folder, _ = pair
    for path in folder.glob("checkpoint*"):
        path.write_bytes(b"")
    said = []
    with fails("None of the checkpoints"):
        newest(folder, said)
    assert len(said) == 2


def test_what_a_kill_leaves_behind_is_of_no_matter(pair) -> None:
    folder, (_, after) = pair
    for name in (".checkpoint.part", ".history.part", f"history-{'0' * 32}.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"half")
    assert content(newest(folder)) == content(after)
    saved = Checkpoints(folder)
    saved.save(further(saved.newest(beginning(), lambda _: None), 1))
    assert names(folder, "history-000*") == []
    assert (folder / "notes.txt").read_bytes() == b"half", "what is not ours stays"


# ---- of another descent


def test_facts_are_compared(tmp_path) -> None:
    opened(tmp_path, facts={"seed": np.int64(1), "rates": [0.5, float("inf")]}).save(further(beginning(), 1))
    assert newest(tmp_path, facts={"seed": 1, "rates": (0.5, np.inf)}) is not None
    with fails("of another descent: its seed was 1 and is now 2"):
        newest(tmp_path, facts={"seed": 2, "rates": [0.5, np.inf]})
    with fails("its more was None and is now 1"):
        newest(tmp_path, facts={"seed": 1, "rates": [0.5, np.inf], "more": 1})


def test_leaves_are_compared(tmp_path) -> None:
    opened(tmp_path).save(further(beginning(), 1))
    with fails("its state.parameters['a'] was float32[3] and is now float32[4]"):
        newest(tmp_path, size=4)
    template = beginning()
    for optimizer_state, message in (
        (template.state.optimizer_state[:2], "and is now absent"),
        ((*template.state.optimizer_state, jnp.zeros(2)), "was absent and is now float32[2]"),
    ):
        other = replace(template, state=template.state._replace(optimizer_state=optimizer_state))
        with fails(message):
            Checkpoints(tmp_path).newest(other, lambda _: None)


def test_another_format_is_refused(tmp_path, monkeypatch) -> None:
    opened(tmp_path).save(further(beginning(), 1))
    monkeypatch.setattr(checkpoints, "FORMAT", 1)
    with fails("its format was 2 and is now 1"):
        newest(tmp_path)


# ---- the file


def test_any_reader_of_safetensors_reads_it(tmp_path) -> None:
    standing = further(beginning(), 4)
    opened(tmp_path).save(standing)
    with safe_open(tmp_path / "checkpoint-000001.safetensors", "numpy") as file:
        np.testing.assert_array_equal(
            file.get_tensor("state.parameters['a']"), standing.state.parameters["a"]
        )
        assert set(file.metadata()) == {"steepest", "checksum"}
    with safe_open(next(tmp_path.glob("history*")), "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("loss"), standing.history.steps(0, 4).loss)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(small_disk) -> None:
    saved = opened(small_disk)
    standing = further(beginning(), 100)
    saved.save(standing)
    before, expected = names(small_disk), content(standing)
    with fails("The checkpoint can't be written", "No space left on device"):
        saved.save(further(standing, 10_000))
    assert names(small_disk) == before
    assert content(newest(small_disk)) == expected


@pytest.mark.parametrize("fitting", range(4))
def test_a_write_that_fails_leaves_what_was_there(pair, fitting, monkeypatch) -> None:
    """History and checkpoint are each written and renamed: whichever fails, the checkpoints before stay."""
    folder, (_, after) = pair
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > fitting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    saved = Checkpoints(folder)
    standing = further(saved.newest(beginning(), lambda _: None), 1)
    monkeypatch.setattr(os, "fsync", full)
    with fails("No space left"):
        saved.save(standing)
    monkeypatch.undo()
    assert not names(folder, ".*")
    assert content(newest(folder)) == content(standing if fitting == 3 else after)
    saved.save(standing)
    assert content(newest(folder)) == content(standing)


def test_no_folder_can_be_made(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with fails("The checkpoint can't be written", "file: File exists"):
        newest(tmp_path / "file")


# ---- when it saves


class Clock:
    """A clock that stands still but when a checkpoint is written: that takes `cost` seconds."""

    def __init__(self, monkeypatch, cost: float) -> None:
        self.now, self.cost, write = 0.0, cost, checkpoints._write
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

        def writing(*arguments):
            self.now += self.cost
            write(*arguments)

        monkeypatch.setattr(checkpoints, "_write", writing)


@pytest.mark.parametrize(
    ("every", "cost", "expected"),
    [(60.0, 0.5, [60.0, 120.5, 181.0]), (60.0, 2.0, [60.0, 162.0, 264.0]), (0.0, 2.0, [0.0, 2.0, 4.0, 6.0])],
)
def test_it_saves_now_and_then(tmp_path, monkeypatch, every, cost, expected) -> None:
    """Every 60 seconds; if saving takes 2, every 100; with 0, whenever it is offered something."""
    clock, times = Clock(monkeypatch, cost), []
    saved, standing = opened(tmp_path, every=every), further(beginning(), 1)
    while len(times) < len(expected):
        before = clock.now
        saved.offer(standing)
        if clock.now > before:
            times.append(before)
        else:
            clock.now += 0.5
    assert times == expected


def test_what_was_offered_last_is_saved_at_the_end_and_once(tmp_path) -> None:
    saved, standing = opened(tmp_path), further(beginning(), 1)
    saved.finish()
    assert not names(tmp_path)
    saved.offer(standing)
    assert not names(tmp_path)
    saved.finish()
    assert content(newest(tmp_path)) == content(standing)
    saved.finish()
    assert len(names(tmp_path, "checkpoint*")) == 1
    again = Checkpoints(tmp_path)
    again.newest(beginning(), lambda _: None)
    again.finish()
    assert len(names(tmp_path, "checkpoint*")) == 1
