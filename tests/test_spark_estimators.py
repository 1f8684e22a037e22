"""Spark ML estimators, in a Spark session of this machine's own."""

from __future__ import annotations

import gc
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.errors import PythonException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame
from pyspark.sql import functions as sql
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, roc_auc_score

import steepest
from real_data import flights
from spark_sessions import spark
from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.data.packed import packed_rows
from steepest.errors import SteepestError
from steepest.prediction import outputs_of, predict
from steepest.run import Run, open_run, write_model
from steepest.settings import Settings
from steepest.spark import (
    DescentClassificationModel,
    DescentClassifier,
    DescentRegressionModel,
    DescentRegressor,
    estimators,
)
from steepest.spark.vectors import element_names, width_of
from steepest.tasks import Task

POOL = pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning")
"""CrossValidator and TrainValidationSplit leave their pool of threads to the garbage collector."""

NEW_YORK = {"spark.sql.session.timeZone": "America/New_York"}

QUICK = {"learningRate": 0.01, "batchSize": 256, "epochs": 2, "numWorkers": 2}
NUMBERS = ["distance", "hour", "dep_delay"]


@pytest.fixture(scope="module")
def session():
    with spark(
        "local[2]", **{"spark.sql.session.timeZone": "America/New_York", "spark.sql.timeType.enabled": "true"}
    ) as found:
        yield found


@pytest.fixture(scope="module")
def departures() -> pd.DataFrame:
    """2,000 departures, and whether each came more than a quarter of an hour late."""
    known = flights().dropna(subset=["arr_delay"]).sample(2_000, random_state=0).reset_index(drop=True)
    known["label"] = (known["arr_delay"] > 15).astype(float)
    known["time_hour"] = pd.to_datetime(known["time_hour"], utc=True)
    return known[["label", *NUMBERS, "carrier", "origin", "time_hour", "arr_delay"]]


@pytest.fixture(scope="module")
def frame(session, departures):
    return session.createDataFrame(departures.drop(columns="arr_delay")).cache()


@pytest.fixture(scope="module")
def model(frame):
    return DescentClassifier(hidden=[16], **QUICK).fit(frame)


def collected(frame) -> pd.DataFrame:
    return frame.toPandas()


def matrix(column: pd.Series) -> np.ndarray:
    return np.stack([vector.toArray() for vector in column])


def by_the_clock(departures: pd.DataFrame) -> pa.Table:
    """The same rows as Spark gives them: times by the clock of the session."""
    local = departures.drop(columns="arr_delay")
    return pa.Table.from_pandas(local.assign(time_hour=local["time_hour"].dt.tz_convert("America/New_York")))


def test_fits_what_steepest_fits(model, departures, frame, tmp_path):
    run = steepest.fit(
        by_the_clock(departures),
        "label",
        model="mlp",
        hidden=(16,),
        learning_rate=0.01,
        batch_size=256,
        epochs=2,
        validation=0.0,
        out=str(tmp_path / "run"),
    )
    found = matrix(collected(model.transform(frame))["probability"])[:, 1]
    np.testing.assert_allclose(found, predict(run, by_the_clock(departures)), rtol=0, atol=1e-5)
    for mine, theirs in zip(model.run.plan.columns, run.plan.columns, strict=True):  # merged from two parts
        for figure in ("mean", "deviation"):
            assert getattr(mine, figure) == pytest.approx(getattr(theirs, figure), rel=1e-12)
        assert replace(mine, mean=0, deviation=0) == replace(theirs, mean=0, deviation=0)


def test_transform_gives_the_runs_own_predictions(model, departures, frame):
    found = collected(model.transform(frame))
    rows = by_the_clock(departures)
    expected = predict(model.run, rows)
    features = packed_rows(model.run.plan.layout, model.run.plan.pack(rows))
    outputs = outputs_of(model.run.model, model.run.parameters, features)
    np.testing.assert_allclose(matrix(found["probability"])[:, 1], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(matrix(found["rawPrediction"]), np.stack([-outputs, outputs], 1), atol=1e-5)
    assert (found["prediction"] == (expected > 0.5)).all()
    assert found["prediction"].dtype == float


def test_a_model_is_judged_by_sparks_evaluators(model, departures, frame):
    predicted = model.transform(frame)
    label, probability = departures["label"], predict(model.run, by_the_clock(departures))
    area = BinaryClassificationEvaluator(numBins=0).evaluate(predicted)
    assert area == pytest.approx(roc_auc_score(label, probability), abs=1e-6)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(predicted)
    assert accuracy == pytest.approx(accuracy_score(label, probability > 0.5), abs=1e-9)
    loss = MulticlassClassificationEvaluator(metricName="logLoss").evaluate(predicted)
    right = np.where(label == 1, probability, 1 - probability)
    assert loss == pytest.approx(-np.log(right).mean(), abs=1e-5)


def test_the_summary_tells_how_the_descent_went(model):
    assert (model.getBatchSize(), model.getHidden()) == (256, [16])
    summary = model.summary
    assert len(summary.history) == 2 * 8
    assert summary.epochs["epoch"].tolist() == [1, 2]
    assert summary.record["figures"]["training"]["scores"]["accuracy"] > 0.5
    assert summary.findings == summary.record["findings"]
    assert isinstance(summary.workers, pd.DataFrame)


def test_a_regressor_finds_the_closed_form(session, departures):
    known = departures[["dep_delay", "distance", "arr_delay"]]
    frame = session.createDataFrame(known)
    descent = {"optimizer": "sgd", "learningRate": 0.5, "batchSize": "all", "epochs": 500}
    model = DescentRegressor(labelCol="arr_delay", tolerance=0.0, **descent).fit(frame)
    predicted = model.transform(frame)
    oracle = LinearRegression().fit(known[["dep_delay", "distance"]], known["arr_delay"])
    expected = oracle.predict(known[["dep_delay", "distance"]])
    np.testing.assert_allclose(collected(predicted)["prediction"], expected, atol=1e-3)
    score = RegressionEvaluator(labelCol="arr_delay", metricName="r2").evaluate(predicted)
    assert score == pytest.approx(
        oracle.score(known[["dep_delay", "distance"]], known["arr_delay"]), abs=1e-6
    )
    assert predicted.columns == [*frame.columns, "prediction"]


@pytest.fixture
def fits(monkeypatch, model):
    """What fits were asked for; a fit takes no time and returns the run of `model`."""
    asked = []

    def fit_frame(frame, settings, **others):
        asked.append((frame, settings, others))
        shutil.copytree(model.run.path, settings.out)
        return Run(Path(settings.out))

    monkeypatch.setattr(estimators, "fit_frame", fit_frame)
    return asked


def test_parameters_become_settings(fits, frame):
    DescentClassifier(batchSize="all", l2=0.1, weightCol="hour", numWorkers=3, shared="/shared").fit(frame)
    DescentClassifier(hidden=[8, 4], classWeight="balanced", patience=2, monitor="loss", seed=7).fit(frame)
    (rows, linear, others), (_, network, _) = fits
    assert rows.columns == frame.columns
    assert others == {"vectors": {}}
    placed = {"workers": 3, "shared": "/shared", "out": linear.out}
    told = {"target": "label", "validation": 0.0, "loss": "binary_cross_entropy"}
    wanted = replace(Settings(), batch_size="all", l2=0.1, weights="hour", **placed, **told)
    assert linear == wanted
    asked = {"hidden": (8, 4), "class_weight": "balanced", "patience": 2, "monitor": "loss", "seed": 7}
    assert network == replace(Settings(), model="mlp", workers=1, out=network.out, **asked, **told)


@pytest.mark.parametrize(
    ("labels", "loss"),
    [("id % 2", "binary_cross_entropy"), ("id % 25", "categorical_cross_entropy"), ("id > 2", None)],
)
def test_numbers_are_classes_to_a_classifier_and_numbers_to_a_regressor(session, fits, labels, loss):
    frame = session.range(50).withColumn("label", sql.expr(labels))
    DescentClassifier().fit(frame)
    DescentRegressor().fit(frame)
    assert [settings.loss for _, settings, _ in fits] == [loss, "mean_squared_error"]


def test_what_spark_ml_draws_folds_by_is_no_feature(session, fits):
    frame = session.range(50).withColumns({"label": sql.expr("id % 2"), "fold": sql.expr("id % 3")})
    classifier = DescentClassifier()
    classifier.fit(frame.withColumn(f"{CrossValidator().uid}_rand", sql.rand(0)))
    classifier.fit(frame.withColumn(f"{TrainValidationSplit().uid}_rand", sql.rand(0)))
    classifier.setInputCols(["fold"]).fit(frame)
    assert [rows.columns for rows, _, _ in fits] == [frame.columns, frame.columns, ["label", "fold"]]


def test_vectors_without_names_have_those_of_their_places(session, fits):
    rows = [(Vectors.sparse(3, {1: 1.0}), 0.0), (Vectors.dense(1.0, 2.0, 3.0), 1.0)]
    DescentClassifier(featuresCol="v").fit(session.createDataFrame(rows, ["v", "label"]))
    (frame, _, others) = fits[0]
    assert others["vectors"] == {"v": ("v 0", "v 1", "v 2")}
    assert [row["v"] for row in frame.collect()] == [[0.0, 1.0, 0.0], [1.0, 2.0, 3.0]]


def made_model(folder: Path, labels: list) -> DescentClassificationModel:
    """Make a model that tells the class by x, without training: -1 is the first, 1 the last."""
    plan = Plan((Column("x", "number", "number"),), ())
    binary = len(labels) == 2
    loss = "binary_cross_entropy" if binary else "categorical_cross_entropy"
    task = Task("label", "binary" if binary else "classes", loss, "", tuple(labels))
    shape = {"inputs": 1, "hidden": [], "outputs": task.outputs, "activation": "relu", "dropout": 0.0}
    weights, bias = ([[1.0]], [0.0]) if binary else ([[-9.0, 0.0, 9.0]], [0.0, 1.0, 0.0])
    arrays = {"layer_1.weights": np.float32(weights), "layer_1.bias": np.float32(bias)}
    write_model(folder, {"shape": shape}, arrays, task, plan)
    return DescentClassificationModel(Run(folder), {}, "UTC")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["no", "yes"], ["no", "yes"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        ([False, True], [False, True]),
        ([3, 7], [3.0, 7.0]),
        ([1, 2, 9], [1.0, 2.0, 9.0]),
        ([-1.5, 2.5], [-1.5, 2.5]),
    ],
)
def test_predictions_are_doubles_where_labels_are_numbers(session, tmp_path, labels, expected):
    model = made_model(tmp_path, labels)
    places = [-1.0, 1.0] if len(labels) == 2 else [-1.0, 0.0, 1.0]
    found = collected(model.transform(session.createDataFrame([(x,) for x in places], ["x"])))
    assert found["prediction"].tolist() == expected
    assert found["prediction"].dtype == {str: "object", bool: "bool"}.get(type(labels[0]), "float64")
    assert (model.labels, model.numClasses) == (tuple(labels), len(labels))
    raw, probability = matrix(found["rawPrediction"]), matrix(found["probability"])
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-7)
    assert raw.argmax(axis=1).tolist() == probability.argmax(axis=1).tolist() == list(range(len(labels)))
    if len(labels) == 2:
        np.testing.assert_allclose(raw, [[1.0, -1.0], [-1.0, 1.0]])
        np.testing.assert_allclose(probability[:, 1], [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)


def test_a_pipeline_learns_saves_and_loads(session, frame, tmp_path):
    stages = [
        StringIndexer(inputCol="carrier", outputCol="carrier_number", handleInvalid="keep"),
        OneHotEncoder(inputCol="carrier_number", outputCol="carrier_one_hot"),
        VectorAssembler(inputCols=["distance", "hour", "carrier_one_hot"], outputCol="features"),
        DescentClassifier(featuresCol="features", hidden=[8], **QUICK).setNumWorkers(1),
    ]
    Pipeline(stages=stages).write().save(str(tmp_path / "pipeline"))
    pipeline = Pipeline.load(str(tmp_path / "pipeline"))
    assert pipeline.getStages()[3].extractParamMap() == stages[3].extractParamMap()
    fitted = pipeline.fit(frame)
    found = collected(fitted.transform(frame))
    model = fitted.stages[3]
    assert isinstance(found["features"][0], SparseVector)
    assert "carrier_one_hot_UA" in model.run.plan.feature_names
    metadata = fitted.transform(frame).schema["features"].metadata
    names = element_names("features", metadata, width_of(metadata))
    rows = pa.table(dict(zip(names, matrix(found["features"]).T, strict=True)))
    np.testing.assert_allclose(
        matrix(found["probability"])[:, 1], predict(model.run, rows), rtol=0, atol=1e-6
    )
    fitted.write().save(str(tmp_path / "fitted"))
    loaded = PipelineModel.load(str(tmp_path / "fitted"))
    assert type(loaded.stages[3]) is DescentClassificationModel
    pd.testing.assert_frame_equal(collected(loaded.transform(frame)), found)
    moved = found_in_another_column(fitted, frame)
    pd.testing.assert_series_equal(moved["rawPrediction"], found["rawPrediction"])
    with pytest.raises(SteepestError, match=r"no column 'features' \(featuresCol\)"):
        model.transform(frame)
    with pytest.raises(SteepestError, match="'features' holds double values, and vectors were learned from"):
        model.transform(frame.withColumn("features", sql.lit(1.0)))
    halves = sql.when(sql.col("label") > 0, sql.col("features")).alias("features")
    gaps = PipelineModel(fitted.stages[:3]).transform(frame).select(halves).coalesce(1)
    missing = int((found["label"] == 0).sum())
    with pytest.raises(PythonException, match=f"{missing:,} rows have no vector in the column 'features'"):
        model.transform(gaps).collect()


def found_in_another_column(fitted: PipelineModel, frame) -> pd.DataFrame:
    assembled = PipelineModel(fitted.stages[:3]).transform(frame)
    moved = fitted.stages[3].copy().setFeaturesCol("other")
    return collected(moved.transform(assembled.withColumnRenamed("features", "other")))


def test_a_saved_model_is_the_same_model(session, model, frame, tmp_path):
    place = str(tmp_path / "late flights")
    named = model.copy({model.predictionCol: "guess"})
    named.write().save(place)
    loaded = DescentClassificationModel.load(place)
    assert loaded.uid == model.uid
    assert loaded.extractParamMap() == named.extractParamMap()
    pd.testing.assert_frame_equal(collected(loaded.transform(frame)), collected(named.transform(frame)))
    pd.testing.assert_frame_equal(loaded.summary.history, model.summary.history)
    assert open_run(tmp_path / "late flights" / "run").record == model.run.record
    assert not [each for each in tmp_path.rglob("*") if "pickle" in each.name or each.suffix == ".pkl"]


def test_spark_decides_what_is_overwritten(session, model, tmp_path):
    place = str(tmp_path / "model")
    model.save(place)
    with pytest.raises(Exception, match="already exists"):
        model.write().save(place)
    (tmp_path / "notes").mkdir()
    with pytest.raises(Exception, match="already exists"):
        model.write().save(str(tmp_path / "notes"))
    (tmp_path / "model" / "run" / "stale").touch()
    model.write().overwrite().save(place)
    assert not (tmp_path / "model" / "run" / "stale").exists()


def test_what_is_no_saved_model_is_named(session, model, tmp_path):
    place = str(tmp_path / "model")
    model.save(place)
    with pytest.raises(SteepestError, match=r"holds a steepest\.spark\.DescentClassificationModel"):
        DescentRegressionModel.load(place)
    (tmp_path / "model" / "run").rename(tmp_path / "gone")
    with pytest.raises(SteepestError, match="is damaged: its folder 'run' is missing"):
        DescentClassificationModel.load(place)


@pytest.mark.slow
@POOL
def test_cross_validation_finds_the_better_rate(session, frame, tmp_path):
    small = frame.select("label", *NUMBERS)
    classifier = DescentClassifier(hidden=[4], **QUICK)
    grid = (
        ParamGridBuilder().addGrid(classifier.learningRate, [1e-6, 0.05]).addGrid(classifier.clipNorm, [None])
    )
    validator = CrossValidator(
        estimator=classifier,
        estimatorParamMaps=grid.build(),
        evaluator=BinaryClassificationEvaluator(),
        numFolds=2,
        parallelism=2,
        collectSubModels=True,
        seed=1,
    )
    found = validator.fit(small)
    assert found.bestModel.getLearningRate() == 0.05
    assert found.avgMetrics[1] > found.avgMetrics[0]
    assert found.avgMetrics[1] > 0.7
    for model in [found.bestModel, *(each for fold in found.subModels for each in fold)]:
        assert {column.name for column in model.run.plan.columns} == set(NUMBERS)
    found.write().save(str(tmp_path / "validated"))
    loaded = CrossValidatorModel.load(str(tmp_path / "validated"))
    pd.testing.assert_frame_equal(collected(loaded.transform(small)), collected(found.transform(small)))
    gc.collect()


@pytest.mark.slow
@POOL
def test_a_split_of_training_and_validation(session, frame):
    classifier = DescentClassifier(**QUICK)
    split = TrainValidationSplit(
        estimator=classifier,
        estimatorParamMaps=ParamGridBuilder().addGrid(classifier.batchSize, [32, "all"]).build(),
        evaluator=BinaryClassificationEvaluator(),
    )
    found = split.fit(frame.select("label", *NUMBERS))
    assert found.bestModel.getBatchSize() == 32
    assert {column.name for column in found.bestModel.run.plan.columns} == set(NUMBERS)
    gc.collect()


def test_weights_and_rows_held_out(session):
    """Rows that are held out, and rows without weight, teach the opposite."""
    draws = np.random.default_rng(0).normal(size=400)
    held, weight = np.arange(400) % 4 == 0, (np.arange(400) % 4 != 1).astype(float)
    label = ((draws > 0) == (~held & (weight > 0))).astype(float)
    rows = list(zip(draws.tolist(), label.tolist(), weight.tolist(), held.tolist(), strict=True))
    frame = session.createDataFrame(rows, "x double, label double, weight double, held boolean")
    classifier = DescentClassifier(weightCol="weight", validationIndicatorCol="held", learningRate=0.1)
    model = classifier.setEpochs(10).setBatchSize(50).fit(frame)
    assert [column.name for column in model.run.plan.columns] == ["x"]
    assert model.summary.epochs["rows"].tolist() == [300] * 10
    assert model.summary.epochs["validation_accuracy"].iloc[-1] < 0.1
    assert ((collected(model.transform(frame))["prediction"] == 1) == (draws > 0)).mean() > 0.95


TYPES = {
    "byte": "cast(id % 7 as byte)",
    "decimal": "cast(id / 3 as decimal(12, 3))",
    "float": "cast(id / 7 as float)",
    "text": "concat('c', id % 3)",
    "flag": "id % 2 = 0",
    "day": "date_add(date'2013-01-01', cast(id as int))",
    "instant": "timestamp'2013-01-01 00:00:00' + make_dt_interval(0, id)",
    "local": "timestamp_ntz'2013-01-01 00:00:00' + make_dt_interval(0, id * id)",
    "lasting": "make_dt_interval(id)",
    "clock": "cast(timestamp_ntz'2013-01-01 00:00:00' + make_dt_interval(0, id) as time)",
    "gaps": "if(id % 3 = 0, null, id * 1.0)",
    "a.dotted `name`": "cast(id as double)",
}


@pytest.fixture(scope="module")
def kinds(session):
    columns = [f"{made} as `{name.replace('`', '``')}`" for name, made in TYPES.items()]
    return session.range(120).selectExpr("cast(id % 5 > 1 as int) as label", *columns)


@pytest.fixture(scope="module")
def of_kinds(kinds):
    return DescentClassifier(**QUICK).fit(kinds)


def test_columns_of_every_type_arrive_as_they_were_learned(of_kinds, kinds):
    assert {column.name for column in of_kinds.run.plan.columns} == set(TYPES)
    assert of_kinds.run.plan.dropped == ()
    found = collected(of_kinds.transform(kinds))
    local = kinds.toArrow()
    at = local.schema.get_field_index("instant")
    local = local.set_column(at, "instant", local["instant"].cast(pa.timestamp("us", "America/New_York")))
    expected = predict(of_kinds.run, local)
    np.testing.assert_allclose(matrix(found["probability"])[:, 1], expected, rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(found[kinds.columns], collected(kinds))


def test_another_time_zone_gives_the_same_numbers(session, of_kinds, kinds, tmp_path):
    of_kinds.save(str(tmp_path / "model"))
    kept = kinds.select(
        "label", *(sql.col(f"`{name.replace('`', '``')}`") for name in TYPES)
    ).localCheckpoint()
    expected = collected(of_kinds.transform(kept))["rawPrediction"]
    session.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = collected(DescentClassificationModel.load(str(tmp_path / "model")).transform(kept))
    finally:
        session.conf.set("spark.sql.session.timeZone", "America/New_York")
    pd.testing.assert_series_equal(found["rawPrediction"], expected)


def test_columns_that_are_not_needed_pass_untouched(session, model, frame):
    odd = frame.withColumns(
        {"nested": sql.struct("hour", sql.array("distance")), "origin.again": sql.col("origin")}
    ).drop("label")
    found = model.transform(odd.union(odd.limit(0)))
    assert found.columns == [*odd.columns, "prediction", "probability", "rawPrediction"]
    assert found.select("nested.hour").first() == frame.select("hour").first()
    assert collected(model.transform(odd.limit(0))).empty


def test_columns_without_a_name_are_not_added(model, frame):
    quiet = model.copy({model.probabilityCol: "", model.rawPredictionCol: ""})
    assert quiet.transform(frame).columns == [*frame.columns, "prediction"]


def test_a_stream_is_transformed(session, model, frame, tmp_path):
    frame.write.parquet(str(tmp_path / "rows"))
    stream = session.readStream.schema(frame.schema).parquet(str(tmp_path / "rows"))
    query = (
        model.transform(stream)
        .writeStream.format("memory")
        .queryName("predicted")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination(60)
    found = session.table("predicted").groupBy("prediction").count().collect()
    expected = model.transform(frame).groupBy("prediction").count().collect()
    assert sorted(found) == sorted(expected)
    with pytest.raises(SteepestError, match="this DataFrame is a stream"):
        DescentClassifier().fit(stream)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"labelCol": "lable"}, r"no column 'lable' \(labelCol\). Did you mean 'label'"),
        ({"weightCol": "Label"}, r"no column 'Label' \(weightCol\). Did you mean 'label'"),
        ({"validationIndicatorCol": "held"}, "no column 'held' .validationIndicatorCol"),
        ({"weightCol": "label"}, "weightCol and labelCol name the same column, 'label'"),
        ({"validationIndicatorCol": "x", "validation": 0.2}, "both say which rows to hold out"),
        ({"featuresCol": "x"}, "featuresCol names 'x', which holds double values, not vectors"),
        ({"featuresCol": "v", "inputCols": ["x"]}, "featuresCol and inputCols are both set"),
        ({}, "The column 'v' holds vectors, and featuresCol is not set"),
        ({"inputCols": []}, "There is no column to learn from"),
        ({"inputCols": ["x", "y"]}, r"no column 'y' \(inputCols\[1\]\)"),
        ({"inputCols": ["months"]}, "The column 'months' holds interval month values"),
        (
            {"inputCols": ["x"], "loss": "huber"},
            "DescentClassifier has no loss 'huber'. It has: binary_cross",
        ),
        ({"inputCols": ["x"], "loss": "hugr"}, "no loss 'hugr'. Did you mean 'huber'"),
        ({"inputCols": ["x"], "labelCol": "nothing"}, "no row with a value in the label column 'nothing'"),
        ({"inputCols": ["x"], "labelCol": "nan"}, "no row with a value in the label column 'nan'"),
        ({"inputCols": ["x"], "labelCol": "one"}, "one value"),
        ({"inputCols": ["x"], "optimizer": "adm"}, "adam"),
    ],
)
def test_bad_fits_are_refused_in_plain_words(odd, parameters, message):
    with pytest.raises(SteepestError, match=message):
        DescentClassifier(**parameters).fit(odd)


@pytest.fixture(scope="module")
def odd(session):
    frame = session.createDataFrame([(1.0, 0.0), (2.0, 1.0)], ["x", "label"])
    made = {
        "nothing": "cast(null as string)",
        "nan": "double('nan')",
        "one": "1",
        "months": "interval '1' month",
    }
    extended = frame.withColumns({name: sql.expr(each) for name, each in made.items()})
    return VectorAssembler(inputCols=["x"], outputCol="v").transform(extended)


def test_frames_without_rows_and_other_things_are_refused(session, odd, departures):
    empty = odd.limit(0).select("x", "label")
    with pytest.raises(SteepestError, match="The DataFrame has no rows"):
        DescentClassifier().fit(empty)
    with pytest.raises(SteepestError, match="The DataFrame has no rows"):
        DescentRegressor().fit(empty)
    with pytest.raises(SteepestError, match="fit takes a Spark DataFrame, not a pandas DataFrame"):
        DescentClassifier().fit(departures)
    with pytest.raises(SteepestError, match="not one of Spark Connect"):
        DescentClassifier().fit(object.__new__(DataFrame))
    with pytest.raises(SteepestError, match="'label'"):
        DescentClassifier().fit(odd.select("label", "x", "label"))
    with pytest.raises(SteepestError, match="no column to learn from"):
        DescentClassifier().fit(odd.select("label"))
    nowhere = odd.withColumn("w", sql.when(sql.col("x") > 9, sql.col("v"))).withMetadata("w", {})
    with pytest.raises(SteepestError, match="No row of the DataFrame has a vector in the column 'w'"):
        DescentClassifier(featuresCol="w").fit(nowhere)


def test_bad_transforms_are_refused_at_the_driver(session, model, frame):
    with pytest.raises(SteepestError, match="no column 'hour', which the model was trained with"):
        model.transform(frame.drop("hour"))
    with pytest.raises(SteepestError, match="'hour' holds string values where numbers were learned"):
        model.transform(frame.withColumn("hour", sql.col("hour").cast("string")))
    with pytest.raises(SteepestError, match="'origin' holds array<string> values where text were learned"):
        model.transform(frame.withColumn("origin", sql.array("origin")))
    with pytest.raises(SteepestError, match="has a column 'prediction' already, where predictionCol"):
        model.transform(model.transform(frame))
    with pytest.raises(SteepestError, match="has a column 'same' already, where probabilityCol"):
        model.copy({model.predictionCol: "same", model.probabilityCol: "same"}).transform(frame)
    with pytest.raises(SteepestError, match="featuresCol names 'x', but the model was trained on raw"):
        model.copy({model.featuresCol: "x"}).transform(frame)


def test_a_run_stays_where_it_was_wanted_and_else_goes_with_the_model(fits, frame, tmp_path):
    kept = DescentClassifier(out=str(tmp_path / "run")).fit(frame)
    assert kept.run.path == tmp_path / "run"
    passing = DescentClassifier().fit(frame)
    copied, folder = passing.copy(), passing.run.path
    del passing, kept
    gc.collect()
    assert (folder / "report.html").is_file()
    del copied
    gc.collect()
    assert not folder.parent.exists()
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_descent_that_diverged_leaves_its_report(frame, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    regressor = DescentRegressor(optimizer="sgd", learningRate=1e30, epochs=3)
    with pytest.raises(SteepestError, match="diverged at step") as raised:
        regressor.fit(frame.select("label", "distance"))
    report = next(word for word in str(raised.value).split() if word.endswith("report.html"))
    assert Path(report).is_file()
