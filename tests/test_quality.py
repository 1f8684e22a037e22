"""What models reach on real tables with few settings, judged by rows that no setting was chosen by.

The settings were chosen by the validation rows of the training file, never by the rows of its test.
"""

from __future__ import annotations

import statistics

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

import real_data
import steepest
from steepest.prediction import predict
from steepest.run import Run

pytestmark = pytest.mark.slow

SEEDS = range(5)

NETWORK = {"model": "mlp", "batch_size": 256, "epochs": 50, "patience": 5}


def test_mails(tmp_path):
    table = real_data.mails()
    assert len(table) == 6046
    assert (table["label"] == "spam").mean() == pytest.approx(0.314, abs=0.001)
    reached = []
    for seed in SEEDS:
        run = steepest.fit(table, "label", seed=seed, out=f"{tmp_path}/{seed}")
        reached.append(run.record["figures"]["validation"]["scores"]["accuracy"])
    print("accuracy", reached)
    assert statistics.mean(reached) >= 0.985


@pytest.mark.parametrize(("settings", "least"), [({}, 0.909), (NETWORK, 0.915)], ids=["linear", "multilayer"])
def test_adult(settings, least, tmp_path):
    learned, test = real_data.adult()
    assert (len(learned), len(test)) == (32_561, 16_281)
    reached = []
    for seed in SEEDS:
        run = steepest.fit(learned, "income", seed=seed, out=f"{tmp_path}/{seed}", **settings)
        reached.append(auc(run, test))
    print("AUC", reached)
    assert statistics.mean(reached) >= least


def auc(run: Run, test: pd.DataFrame) -> float:
    rows = pa.Table.from_pandas(test.drop(columns="income"), preserve_index=False)
    predicted = np.asarray(predict(run, rows))
    return float(roc_auc_score(test["income"] == run.task.labels[1], predicted))
