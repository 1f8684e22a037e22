"""The cache of encoded rows: complete or absent, never another's, and room is asked for first."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from steepest.data import cache
from steepest.data.cache import Entry, Filling, Form, clear, entries, find, key_of, new_entry, seal
from steepest.errors import SteepestError

KEY = key_of({"data": "flights"})
FORMS = {"numbers": Form((5, 2), np.dtype(np.float32)), "codes": Form((5, 0), np.dtype(np.uint8))}
NUMBERS = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lying_in(folder) -> list[str]:
    """Return what is in the cache besides its lock."""
    return sorted(file.name for file in folder.iterdir() if file.name != "lock")


def write(key: str = KEY, numbers: np.ndarray = NUMBERS) -> Entry | None:
    with new_entry(key) as aside, Filling(FORMS, aside) as filling:
        filling.append("numbers", numbers[:3])
        filling.append("codes", np.empty((5, 0), np.uint8))
        filling.append("numbers", numbers[3:].astype(np.float64))
        filling.finish()
        assert find(key) is None, "absent until it is whole"
        seal(aside, FORMS, {"plan": "any"})
    return find(key)


def test_an_entry_is_what_was_written(folder):
    assert entries() == []
    entry = write()
    arrays = entry.arrays()
    np.testing.assert_array_equal(arrays["numbers"], NUMBERS)
    assert arrays["codes"].shape == (5, 0)
    assert not arrays["numbers"].flags.writeable
    assert entry.facts["plan"] == "any"
    assert [each.path for each in entries()] == [folder / KEY]
    assert entry.size > NUMBERS.nbytes
    assert lying_in(folder) == [KEY]
    assert sorted(file.name for file in (folder / KEY).iterdir()) == [
        "codes.bin",
        "entry.json",
        "numbers.bin",
    ]


def test_memory_holds_the_same():
    filling = Filling(FORMS, None)
    filling.append("numbers", NUMBERS[:1])
    filling.append("numbers", NUMBERS[1:])
    np.testing.assert_array_equal(filling.finish()["numbers"], NUMBERS)


def test_more_rows_than_were_counted_are_refused(tmp_path):
    for place in (None, tmp_path):
        with Filling(FORMS, place) as filling:
            filling.append("numbers", NUMBERS)
            with pytest.raises(OverflowError):
                filling.append("numbers", NUMBERS[:1])


@pytest.mark.parametrize("harm", ["cut", "no JSON", "no file"])
def test_a_damaged_entry_is_absent_and_made_anew(folder, harm):
    write()
    if harm == "cut":
        (folder / KEY / "numbers.bin").write_bytes(b"1234")
    elif harm == "no JSON":
        (folder / KEY / "entry.json").write_text('{"arrays": ')
    else:
        (folder / KEY / "numbers.bin").unlink()
    assert find(KEY) is None
    assert entries() == []
    np.testing.assert_array_equal(write().arrays()["numbers"], NUMBERS)


def test_an_exception_leaves_nothing(folder):
    def fail():
        with new_entry(KEY) as aside, Filling(FORMS, aside):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert lying_in(folder) == []


def test_the_first_of_two_stays():
    barrier = threading.Barrier(2)
    found = []

    def make():
        with new_entry(KEY) as aside, Filling(FORMS, aside) as filling:
            filling.append("numbers", NUMBERS)
            filling.finish()
            seal(aside, FORMS, {"by": threading.get_ident()})
            barrier.wait()
        found.append(find(KEY).facts["by"])

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(entries()) == 1


def test_clearing_frees_all_but_what_is_being_written_and_what_is_not_ours(folder):
    entry = write()
    mapped, size = entry.arrays()["numbers"], entry.size
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    with new_entry(key_of({"data": "other"})) as aside:
        (aside / "half.bin").write_bytes(b"half")
        assert clear() == size
        assert (aside / "half.bin").is_file()
    assert entries() == []
    np.testing.assert_array_equal(mapped, NUMBERS)
    assert (folder / "notes" / "mine.txt").read_text() == "mine"


def test_what_a_killed_process_left_goes_with_the_next(folder):
    code = (
        "import time; from steepest.data.cache import new_entry\n"
        f"with new_entry('{KEY}') as aside:\n"
        "    (aside / 'half.bin').write_bytes(b'half'); print('here', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        assert clear() == 0, "it is being written"
        assert len(lying_in(folder)) == 1
        process.kill()
    time.sleep(0.05)
    write()
    assert lying_in(folder) == [KEY]


@pytest.mark.parametrize("missing", ["lock", "folder"])
def test_what_is_left_of_an_entry_goes_with_the_next(folder, missing):
    left = folder / f"{KEY}.01234567.partial"
    left.mkdir(parents=True)
    if missing == "folder":
        (left / "lock").write_bytes(b"")
    write()
    assert lying_in(folder) == [KEY]


def test_an_entry_that_is_removed_is_none_from_the_first_moment_on(folder, monkeypatch):
    write()
    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
        clear()
    assert find(KEY) is None
    assert len(lying_in(folder)) == 1
    assert clear() > 0
    assert lying_in(folder) == []


def test_a_disk_without_room_is_told_before_and_when_it_happens(folder, monkeypatch):
    large = {"numbers": Form((2**50, 2), np.dtype(np.float32))}
    with pytest.raises(SteepestError, match=r"full: the encoded rows need 8,589,934,592 MiB.*--clear"):  # noqa: SIM117
        with new_entry(KEY) as aside:
            Filling(large, aside)
    assert lying_in(folder) == []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(SteepestError, match=r"is full.*STEEPEST_CACHE"):
        write()
    assert lying_in(folder) == []


def test_a_cache_that_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "file"))
    with pytest.raises(SteepestError, match=r"can't be written.*STEEPEST_CACHE"):
        write()
    assert entries() == []


def test_where_it_is(monkeypatch):
    monkeypatch.delenv("STEEPEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache.cache_folder()) == "/somewhere/steepest"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    assert str(cache.cache_folder()) == "/home/user/.cache/steepest"
