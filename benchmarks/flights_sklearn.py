"""The script that a person would write with scikit-learn for the flights; `process.py` runs it.

python benchmarks/flights_sklearn.py data/flights.csv linear|mlp
"""

from __future__ import annotations

import sys

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

MODELS = {
    "linear": LogisticRegression(max_iter=1000),
    # The settings of examples/flights.toml, but for dropout and the cosine, which there are not.
    "mlp": MLPClassifier((128,), batch_size=256, max_iter=6, random_state=0),
}


def main(path: str, model: str) -> None:
    table = pd.read_csv(path).dropna(subset="late")
    columns = table.drop(columns=["late", "date"])
    split = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
    training, held_out = next(split.split(columns, groups=table["date"]))
    texts = columns.select_dtypes("object").columns
    encode = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), columns.columns.difference(texts)),
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
        ]
    )
    pipeline = make_pipeline(encode, MODELS[model])
    pipeline.fit(columns.iloc[training], table["late"].iloc[training])
    probability = pipeline.predict_proba(columns.iloc[held_out])[:, 1]
    print(roc_auc_score(table["late"].iloc[held_out], probability))


if __name__ == "__main__":
    main(*sys.argv[1:])
