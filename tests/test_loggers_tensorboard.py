"""Logs for TensorBoard, read by TensorBoard itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import steepest
from expecting import fails
from interruptions import StopsAfter
from logged import (
    EPOCHS,
    STEPS,
    WINDOWS,
    KeepsCheckpoint,
    data_of,
    descend,
    objective,
    put_back,
    short_windows,
)
from steepest.loggers import TensorBoard


@pytest.fixture(autouse=True)
def _several_windows(monkeypatch):
    short_windows(monkeypatch)


@pytest.fixture(scope="module")
def whole(cancer):
    """The descent that nobody interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        short_windows(patch)
        return descend(cancer, [])


def shown(folder):
    """What TensorBoard shows of a folder."""
    return EventAccumulator(str(folder), {"scalars": 0, "tensors": 0}).Reload()


def curve(shown, tag):
    points = shown.Scalars(tag)
    return pd.Series([each.value for each in points], [each.step for each in points])


def assert_shows(shown, result):
    """TensorBoard shows each step and each epoch once, and as they were."""
    for tag in ("loss", "gradient_norm", "learning_rate"):
        points = curve(shown, f"step/{tag}")
        assert points.index.tolist() == result.history["step"].tolist()
        np.testing.assert_array_equal(points, result.history[tag].astype(np.float32))
    for tag in ("loss", "validation_loss", "learning_rate"):
        points = curve(shown, f"epoch/{tag}")
        assert points.index.tolist() == result.epochs["step"].tolist()
        np.testing.assert_allclose(points, result.epochs[tag], rtol=1e-6)


def text(shown, tag):
    (point,) = shown.Tensors(f"{tag}/text_summary")
    return point.tensor_proto.string_val[0].decode()


def test_tensorboard_shows_steps_epochs_and_settings(cancer, tmp_path):
    result = descend(cancer, [TensorBoard(tmp_path / "logs")])
    seen = shown(tmp_path / "logs")
    assert_shows(seen, result)
    assert set(seen.Tags()["scalars"]) >= {"epoch/seconds", "epoch/rows_per_second"}
    assert not {"epoch/epoch", "epoch/step", "epoch/rows"} & set(seen.Tags()["scalars"])
    assert "| learning_rate | 0.1 |" in text(seen, "settings")
    assert result.why_it_stopped in text(seen, "end")


@pytest.mark.parametrize("windows", [WINDOWS - 1, WINDOWS, 2 * WINDOWS + 1])
def test_a_descent_that_goes_on_is_one_curve(cancer, tmp_path, whole, windows):
    with pytest.raises(KeyboardInterrupt):
        descend(
            cancer,
            [TensorBoard(tmp_path / "logs"), StopsAfter(windows, KeyboardInterrupt())],
            checkpoint=tmp_path / "checkpoint",
        )
    descend(cancer, [TensorBoard(tmp_path / "logs")], checkpoint=tmp_path / "checkpoint")
    assert_shows(shown(tmp_path / "logs"), whole)


def test_after_a_kill_what_is_taken_again_is_shown_once(cancer, tmp_path, whole):
    checkpoint, aside = tmp_path / "checkpoint", tmp_path / "aside"
    asked = {"checkpoint": checkpoint, "checkpoint_every": 0}
    callbacks = [TensorBoard(tmp_path / "logs"), KeepsCheckpoint(checkpoint, aside, WINDOWS + 2)]
    with pytest.raises(KeyboardInterrupt):
        descend(cancer, [*callbacks, StopsAfter(3 * WINDOWS + 1, KeyboardInterrupt())], **asked)
    assert curve(shown(tmp_path / "logs"), "epoch/loss").index.tolist() == [STEPS, 2 * STEPS, 3 * STEPS]
    put_back(checkpoint, aside)
    descend(cancer, [TensorBoard(tmp_path / "logs")], **asked)
    assert_shows(shown(tmp_path / "logs"), whole)


def test_what_a_setback_takes_back_is_not_shown(cancer, tmp_path):
    rates = steepest.schedules.custom(lambda step: np.where(step < 12, 0.1, 1e38))
    callbacks = [TensorBoard(tmp_path / "logs")]
    result = descend(cancer, callbacks, optimizer=steepest.SGD(rates), on_divergence="back-off")
    assert result.setbacks
    seen = shown(tmp_path / "logs")
    assert curve(seen, "step/loss").index.tolist() == result.history["step"].tolist()
    assert curve(seen, "epoch/loss").index.tolist() == result.epochs["step"].tolist()


def test_of_a_folder_the_last_descent_is_shown(cancer, tmp_path):
    descend(cancer, [TensorBoard(tmp_path / "logs")], optimizer=steepest.SGD(1.0))
    result = descend(cancer, [TensorBoard(tmp_path / "logs")], epochs=2)
    assert_shows(shown(tmp_path / "logs"), result)


def test_a_folder_that_is_new_has_the_epochs_before(cancer, tmp_path, whole):
    for folder, epochs in (("one", 2), ("two", EPOCHS)):
        descend(cancer, [TensorBoard(tmp_path / folder)], epochs=epochs, checkpoint=tmp_path / "checkpoint")
    seen = shown(tmp_path / "two")
    assert curve(seen, "epoch/loss").index.tolist() == whole.epochs["step"].tolist()
    assert curve(seen, "step/loss").index.tolist() == [*range(2 * STEPS + 1, 4 * STEPS + 1)]


def test_a_long_descent_is_thinned_and_its_last_epoch_is_there(cancer, tmp_path):
    data = data_of(cancer)
    start = {"weights": np.zeros(30, np.float32), "bias": np.float32(0)}
    callbacks = [TensorBoard(tmp_path / "logs")]
    asked = {"optimizer": steepest.SGD(1e-3), "batch_size": "all", "epochs": 2999, "tolerance": 0.0}
    steepest.minimize(objective, start, data, callbacks=callbacks, **asked)
    seen = shown(tmp_path / "logs")
    wanted = [*range(1, 1025), *range(1026, 2049, 2), *range(2052, 3000, 4)]
    assert curve(seen, "step/loss").index.tolist() == wanted
    assert curve(seen, "epoch/loss").index.tolist() == [*wanted, 2999]


def test_a_folder_that_cannot_be_written_is_refused(cancer, tmp_path):
    (tmp_path / "file").write_text("")
    with fails(f"The log {tmp_path}/file/logs can't be written: "):
        descend(cancer, [TensorBoard(tmp_path / "file" / "logs")])
    with fails("The log s3://bucket/logs can't be written: a log is a folder of this machine."):
        descend(cancer, [TensorBoard("s3://bucket/logs")])
    assert not (tmp_path / "logs").exists()
