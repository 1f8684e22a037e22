"""How far a fit on Spark is: what the first worker writes is what the driver's callbacks hear."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from steepest import mirroring
from steepest.callbacks import Callback
from steepest.mirroring import Mirror, Progress, progress_of
from steepest.spark import telling
from steepest.spark.telling import Listener, listening
from steepest.storage import storage_at
from steepest.unfinished import CHECKPOINTS


class Heard(Callback):
    def __init__(self):
        self.events = []

    def on_rows_seen(self, *what):
        self.events.append(("rows", *what))

    def on_descent_begin(self, *what):
        self.events.append(("descent", *what))

    def on_window_end(self, *what):
        self.events.append(("window", *what))

    def on_epoch_end(self, *what):
        self.events.append(("epoch", *what))


def told(progress):
    return json.loads(json.dumps(progress.told()))


def test_a_listener_hears_each_thing_once_and_all_of_it_again_in_the_next_attempt():
    heard, said, progress = Heard(), [], Progress()
    listener = Listener([heard], said.append)
    progress.say("'late' is learned.")
    progress.on_rows_seen("learning", 100, 200)
    listener.hear(told(progress))
    listener.hear(told(progress))
    progress.on_descent_begin(3, 200)
    progress.on_window_end(1, 200, 0.5)
    progress.on_epoch_end({"epoch": 1, "loss": 0.5, "validation_loss": float("nan")})
    progress.say("The rate is 0.1.")
    listener.hear(told(progress))
    assert said == ["'late' is learned.", "The rate is 0.1."]
    names = ["rows", "descent", "epoch", "window"]
    assert [event for event, *_ in heard.events] == names
    assert heard.events[0] == ("rows", "learning", 100, 200)
    assert heard.events[-1] == ("window", 1, 200, 0.5)
    listener.begin(2)
    listener.hear(told(progress))
    assert [event for event, *_ in heard.events] == [*names, "rows", *names]
    assert heard.events[4] == ("rows", "starting 2 workers", 0, None)
    assert said == ["'late' is learned.", "The rate is 0.1."]


def test_what_a_worker_tells_reaches_the_driver_through_the_storage(tmp_path, monkeypatch):
    monkeypatch.setattr(telling, "LOOK", 0.05)
    heard, said, progress = Heard(), [], Progress()
    storage, work = storage_at(str(tmp_path / "shared")), tmp_path / "run.unfinished"
    work.mkdir()
    with listening(storage, 3, 2, Listener([heard], said.append)), Mirror(storage, 3, work, progress):
        progress.on_descent_begin(2, 10)
        progress.on_window_end(1, 10, 0.25)
        end = time.monotonic() + 20
        while len(heard.events) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        assert heard.events[1:] == [("descent", 2, 10), ("window", 1, 10, 0.25)]
        progress.say("It is over.")
    assert said == ["It is over."], "the last words are heard, too"
    assert storage.names("progress/") == [progress_of(3)]


def test_a_storage_that_takes_no_progress_is_no_end_of_a_fit(tmp_path, monkeypatch):
    storage, work, progress = storage_at(str(tmp_path / "shared")), tmp_path / "run.unfinished", Progress()
    work.mkdir()
    (tmp_path / "shared").write_text("a file where the folder would be")
    progress.say("Nobody hears this.")
    with Mirror(storage, 0, work, progress):
        pass


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_written_where_nothing_happened(tmp_path, count):
    storage, work, progress = storage_at(str(tmp_path / "shared")), tmp_path / "run.unfinished", Progress()
    work.mkdir()
    for _ in range(count):
        progress.on_rows_seen("learning", 1, None)
    with Mirror(storage, 0, work, progress):
        pass
    assert len(storage.names("progress/")) == count


def test_what_a_process_computes_before_and_after_the_descent_is_progress_and_waiting_is_none(monkeypatch):
    spent = [0.0]
    monkeypatch.setattr(mirroring, "time", SimpleNamespace(process_time=lambda: spent[0]))
    progress, counts = Progress(), []

    def beat(seconds):
        spent[0] += seconds
        progress.beat()
        counts.append(progress.count)

    beat(1.5)
    beat(0.01)
    progress.on_descent_begin(1, 10)
    beat(1.5)
    progress.on_descent_end(None)
    beat(1.5)
    beat(0.01)
    assert counts == [1, 1, 2, 4, 4]
    assert progress.doing == "judging the model"


def written(storage, name):
    return (storage.system.open_input_file(f"{storage.path}/{name}")).read()


def test_a_checkpoint_that_is_written_again_is_brought_again(tmp_path):
    storage, work, progress = storage_at(str(tmp_path / "shared")), tmp_path / "run.unfinished", Progress()
    (work / CHECKPOINTS).mkdir(parents=True)
    kept = work / CHECKPOINTS / "steepest.safetensors"

    def write(content):
        kept.with_name(".aside").write_bytes(content)
        kept.with_name(".aside").replace(kept)

    mirror, name = Mirror(storage, 4, work, progress), "attempts/0004/steepest.safetensors"
    for content in (b"first", b"second"):
        write(content)
        mirror._bring()
        assert written(storage, name) == content
    rare = Mirror(storage, 5, work, progress, every=1e9)
    rare._bring()
    write(b"third")
    rare._bring()
    assert written(storage, name.replace("4", "5")) == b"second"
    with pytest.raises(RuntimeError), rare:
        raise RuntimeError
    assert written(storage, name.replace("4", "5")) == b"third", "the last one before all is lost"
