"""Findings on runs that were built to show each of them, and on runs that were built not to."""

import json
from dataclasses import asdict, dataclass, field

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

import steepest
from steepest import tasks
from steepest.data.layout import Run as LayoutRun
from steepest.data.layout import layout_of
from steepest.data.packed import PackedRows
from steepest.descent.optimizers import optimizer_by_name
from steepest.diagnosis.course import course
from steepest.diagnosis.descent_rules import plateau
from steepest.diagnosis.examination import Descended, examine, table_objective
from steepest.diagnosis.findings import RULES, findings
from steepest.prepared import Rows
from steepest.run import Shape
from steepest.settings import Settings

LOSSES = {
    "binary": "binary_cross_entropy",
    "classes": "categorical_cross_entropy",
    "number": "mean_squared_error",
}


@dataclass(frozen=True)
class Table:
    """A table that was split and scaled, as a fit would."""

    training: Rows
    validation: Rows
    task: tasks.Task
    groups: dict


def _packed(features):
    layout = layout_of([LayoutRun("numbers", features.shape[1])])
    return PackedRows(layout, layout.empty(0)._replace(numbers=features))


def table(features, target, kind, scale=True, standardise=True):
    """Hold a fifth of the rows out; scale features and a target of numbers by the others."""
    order = np.random.default_rng(0).permutation(len(target))
    held, known = np.split(order, [len(order) // 5])
    features = np.asarray(features, np.float32)
    if scale:
        features = StandardScaler().fit(features[known]).transform(features).astype(np.float32)
    target = np.asarray(target)
    if kind == "number":
        center, deviation = (target[known].mean(), target[known].std()) if standardise else (0.0, 1.0)
        task = tasks.Task("y", kind, LOSSES[kind], "", (), center, deviation, (float(target[known].mean()),))
        target = ((target - center) / deviation).astype(np.float32)
    else:
        shares = np.bincount(target[known].astype(int)) / len(known)
        task = tasks.Task("y", kind, LOSSES[kind], "", tuple(range(len(shares))), baseline=tuple(shares))
        target = target.astype(np.int32 if kind == "classes" else np.float32)
    training, validation = (Rows(_packed(features[rows]), target[rows], None) for rows in (known, held))
    groups = {f"column {index}": slice(index, index + 1) for index in range(features.shape[1])}
    return Table(training, validation, task, groups)


@dataclass(frozen=True)
class Built:
    """A run to be built, and the findings (without mere information) that it must show."""

    table: object
    shows: tuple = ()
    optimizer: str = "adam"
    rate: float | None = None
    batch_size: int | str = 32
    epochs: int = 60
    hidden: tuple = ()
    activation: str = "relu"
    begin: object = None
    also: tuple = ()
    options: dict = field(default_factory=dict)


def evidence_of(built):
    """Run the descent and examine it."""
    rows = built.table()
    shape = Shape(rows.training.features.shape[1], built.hidden, rows.task.outputs, built.activation, 0.0)
    model = shape.build(tasks.output_bias(rows.task))
    rule = optimizer_by_name(built.optimizer)(*([built.rate] if built.rate else []), **built.options)
    start = model.init(jax.random.key(0))
    if built.begin:
        start = built.begin(start)
    loss = tasks.loss_of(rows.task)
    result = steepest.minimize(
        lambda parameters, batch: loss.per_row(model.apply(parameters, batch["features"]), batch["target"]),
        start,
        rows.training.data,
        optimizer=rule,
        batch_size=built.batch_size,
        epochs=built.epochs,
        tolerance=0,
        validation_data=rows.validation.data,
    )
    failed = result.failure
    descended = Descended(
        objective=table_objective(model, rows.task),
        start=start,
        end=result.parameters,
        rule=rule,
        optimizer_state=result._outcome.standing.state.optimizer_state,
        steps=result.history,
        epochs=result.epochs,
        batch_size=None if built.batch_size == "all" else built.batch_size,
        rows=len(rows.training.target),
        failure=failed
        and {
            "step": failed.step,
            "epoch": failed.epoch,
            "learning_rate": failed.learning_rate,
            "rows": [int(row) for row in failed.rows],
        },
    )
    settings = asdict(Settings(model="mlp" if built.hidden else "linear", activation=built.activation))
    return examine(descended, model, rows.task, rows.groups, rows.training, rows.validation, settings)


def cancer():
    return table(*datasets.load_breast_cancer(return_X_y=True), "binary")


def digits():
    return table(*datasets.load_digits(return_X_y=True), "classes")


def diabetes():
    return table(*datasets.load_diabetes(return_X_y=True), "number")


def iris():
    return table(*datasets.load_iris(return_X_y=True), "classes")


def wine():
    return table(*datasets.load_wine(return_X_y=True), "classes")


def friedman(rows=2000, noise=1.0):
    return table(*datasets.make_friedman1(rows, noise=noise, random_state=0), "number")


def half_noise():
    """A binary target of 4,000 rows, 12 columns, half of them noise."""
    features, target = datasets.make_classification(
        4000, 12, n_informative=6, flip_y=0.1, class_sep=0.8, random_state=0
    )
    return table(features, target, "binary")


def scrambled():
    features, target = datasets.load_breast_cancer(return_X_y=True)
    return table(
        np.tile(features, (4, 1)), np.random.default_rng(1).permutation(np.tile(target, 4)), "binary"
    )


def leaking():
    features, target = datasets.load_diabetes(return_X_y=True)
    noise = np.random.default_rng(1).normal(size=len(target))
    return table(np.column_stack([features, target + noise]), target, "number")


def collinear():
    generator = np.random.default_rng(2)
    common = generator.normal(size=(2000, 1))
    features = np.column_stack([common, common + 0.01 * generator.normal(size=(2000, 1))])
    target = (features[:, 0] - features[:, 1]) * 100 + features[:, 0]
    return table(features, target + 0.1 * generator.normal(size=2000), "number")


def rings():
    """A target that no plane can tell."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(2000, 2))
    return table(features, (features**2).sum(axis=1) > 1.4, "binary")


def rare():
    generator = np.random.default_rng(4)
    features = generator.normal(size=(3000, 3))
    return table(features, generator.random(3000) < 0.03, "binary")


def unscaled_target():
    features, target = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    return table(features, 1e4 * target, "number", standardise=False)


def heavy_tail():
    features, target = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    target[7] = 3000.0
    target[11] = -3000.0
    return table(features, target, "number")


def small_and_wide():
    generator = np.random.default_rng(5)
    features = generator.normal(size=(250, 60))
    return table(features, features[:, 0] + generator.normal(size=250) > 0, "binary")


def killed(start):
    """Biases so low that no unit is ever above zero."""
    return jax.tree.map(lambda leaf: leaf - 100.0 if leaf.ndim == 1 and leaf.size > 1 else leaf, start)


def stuck(start):
    """Weights so small that the descent has to leave a saddle first."""
    return jax.tree.map(lambda leaf: 1e-6 * leaf, start)


def shrunk(start):
    return jax.tree.map(lambda leaf: 0.2 * leaf, start)


def grown(start):
    return jax.tree.map(lambda leaf: 8.0 * leaf, start)


SICK = {
    "descent at 30 times the limit": Built(friedman, ("diverged",), "sgd", 10.0),
    "momentum diverges": Built(diabetes, ("diverged",), "momentum", 1.0, epochs=200),
    "network diverges": Built(friedman, ("diverged",), "sgd", 5.0, hidden=(32, 16)),
    "adam's rate of 3": Built(digits, ("rate_too_high",), "adam", 3.0, hidden=(32,)),
    "sgd's rate of 100": Built(half_noise, ("rate_too_high",), "sgd", 100.0, epochs=10),
    "sgd crawls": Built(friedman, ("rate_too_low",), "sgd", 1e-6),
    "adam crawls": Built(friedman, ("rate_too_low",), "adam", 1e-6),
    "momentum crawls": Built(digits, ("rate_too_low",), "momentum", 1e-5),
    "network crawls": Built(half_noise, ("rate_too_low",), "sgd", 1e-5, hidden=(32, 16)),
    "two columns that are nearly one": Built(
        collinear, ("ill_conditioned",), "sgd", 0.3, batch_size="all", epochs=300
    ),
    "leaving a saddle": Built(
        friedman,
        ("plateau",),
        "sgd",
        0.01,
        hidden=(32,),
        activation="tanh",
        begin=stuck,
        epochs=30,
        also=("vanishing_gradient",),
    ),
    "few rows, many columns": Built(small_and_wide, ("overfitting",), "adam", 0.01, hidden=(64,)),
    "a plane for rings": Built(rings, ("underfitting",), "adam"),
    "a plane for clusters": Built(half_noise, ("underfitting",), "adam", 0.003, epochs=20),
    "batches of one": Built(friedman, ("noise_dominated",), "sgd", 0.04, batch_size=1, epochs=5),
    "adam on batches of two": Built(half_noise, ("noise_dominated",), "adam", 0.1, batch_size=2, epochs=5),
    "a class of three in a hundred": Built(
        rare, ("class_never_predicted",), also=("no_signal", "rate_too_low"), epochs=20
    ),
    "dead layer": Built(friedman, ("dead_units",), "sgd", hidden=(32, 16), begin=killed),
    "tanh at its bounds": Built(
        friedman, ("dead_units",), "sgd", hidden=(32, 16), activation="tanh", begin=killed
    ),
    "ten layers that shrink": Built(
        friedman, ("vanishing_gradient",), "sgd", hidden=(16,) * 8, activation="tanh", begin=shrunk
    ),
    "layers that grow": Built(
        friedman,
        ("exploding_gradient",),
        "sgd",
        1e-14,
        hidden=(16,) * 5,
        begin=grown,
        epochs=5,
        also=("rate_too_low", "underfitting", "noise_dominated", "rate_too_high"),
    ),
    "the target among the columns": Built(leaking, ("leaking_column",), "adam", 0.01),
    "a target in ten thousands": Built(unscaled_target, ("target_scale",), also=("rate_too_low",)),
    "two rows that are the target": Built(heavy_tail, ("target_scale",), "adam"),
    "scrambled labels": Built(scrambled, ("no_signal",), also=("rate_too_low",), epochs=10),
}

RATES = {
    # Linear: sgd, momentum, adam; network: the same; epochs.
    cancer: ((0.05, 0.005, 0.005), (0.05, 0.005, 0.001), 20),
    digits: ((0.05, 0.005, 0.003), (0.05, 0.005, 0.001), 20),
    diabetes: ((0.01, 0.001, 0.005), (0.01, 0.001, 0.0005), 20),
    iris: ((0.1, 0.02, 0.03), (0.05, 0.01, 0.005), 30),
    wine: ((0.2, 0.02, 0.01), (0.02, 0.005, 0.002), 30),
    half_noise: ((0.05, 0.005, 0.003), (0.05, 0.005, 0.001), 20),
}
"""Rates that a person who knows these tables would choose."""

HEALTHY = {
    f"{make.__name__}, {kind}, {optimizer}": Built(make, (), optimizer, rate, hidden=hidden, epochs=epochs)
    for make, (linear, network, epochs) in RATES.items()
    for kind, hidden, rates in (("linear", (), linear), ("mlp", (32, 16), network))
    for optimizer, rate in zip(("sgd", "momentum", "adam"), rates, strict=True)
    if (make, kind) != (half_noise, "linear")  # which underfits: see SICK
}


QUICK = ("adam crawls", "network diverges", "iris, linear, adam")
"""Runs of the campaign that are not slow."""


def check(name):
    """Return what a run shows beyond what it may, and what it should show and does not."""
    built = (SICK | HEALTHY)[name]
    evidence = evidence_of(built)
    json.dumps(evidence, allow_nan=False)
    found = findings(evidence)
    warned = {each["finding"] for each in found if each["severity"] != "information"}
    return warned - {*built.shows, *built.also}, {*built.shows} - {each["finding"] for each in found}


@pytest.mark.parametrize("name", QUICK)
def test_a_run_shows_what_it_was_built_to(name):
    assert check(name) == (set(), set())


@pytest.mark.slow
def test_every_finding_is_shown_and_no_healthy_run_is_warned(capsys):
    """The campaign: its table is printed."""
    checked = {name: check(name) for name in SICK | HEALTHY}
    identifiers = [rule.__name__ for rule in RULES]
    lines = [f"{'finding':24}runs  hits  false alarms"]
    for each in identifiers:
        runs = [name for name in SICK if each in SICK[name].shows]
        hits = sum(each not in checked[name][1] for name in runs)
        alarms = sum(each in alarm for alarm, _ in checked.values())
        lines.append(f"{each:24}{len(runs):4}{hits:6}{alarms:14}")
    lines.append(f"healthy runs: {len(HEALTHY)}, warned: {sum(bool(checked[name][0]) for name in HEALTHY)}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert {name: each for name, each in checked.items() if any(each)} == {}
    shown = {each for built in SICK.values() for each in built.shows}
    assert shown == {*identifiers} - {"edge_of_stability"}  # which is no warning: see below


QUIET = {
    "course": {
        "steps": 2000,
        "epochs": 20,
        "losses": [1.0, *[0.5 + 0.02 * (20 - part) / 20 for part in range(1, 20)]],
        "errors": [0.01] * 20,
        "first_steps": list(range(1, 2001, 100)),
        "rate_first": 0.1,
        "rate_highest": 0.1,
        "rate_last": 0.1,
        "validation": {"first": 0.9, "best": 0.52, "best_epoch": 20, "last": 0.52},
    }
}


def test_missing_parts_silence_their_rules():
    assert findings(QUIET) == []


def test_the_edge_of_stability_is_information():
    end = {"loss": 0.5, "limit_rate": 0.09, "curvature": 22.0}
    found = findings(QUIET | {"start": {"loss": 1.0}, "end": end})
    assert [(each["finding"], each["severity"]) for each in found] == [("edge_of_stability", "information")]
    assert findings(QUIET | {"start": {"loss": 1.0}, "end": end | {"limit_rate": 0.2}}) == []


def test_a_finding_is_text_throughout_and_names_an_option():
    failure = {"step": 1234, "epoch": 2, "learning_rate": 3.0, "rows": [7, 8], "layer": "layer_2"}
    evidence = QUIET | {"failure": failure, "end": {"limit_rate": 0.5, "curvature": 4.0}}
    assert findings(evidence)[0] == {
        "finding": "diverged",
        "severity": "error",
        "evidence": "The loss or its gradient was not finite at a learning rate of 3, 6 times the largest "
        "stable one (0.5); before that the loss went from 1 to 0.501.",
        "where": "step 1,234 (epoch 2), layer_2; row 7, row 8",
        "try": "--learning-rate 0.2",
    }


def test_patience_takes_the_best_epoch_and_so_does_not_overfit():
    seen = QUIET["course"] | {"validation": {"first": 0.9, "best": 0.52, "best_epoch": 5, "last": 0.8}}
    overfitted = {"course": seen}
    assert [each["finding"] for each in findings(overfitted)] == ["overfitting"]
    assert findings(overfitted)[0]["try"] == "--epochs 5, or --patience 3"
    assert findings(overfitted | {"settings": {"patience": 3}}) == []


def test_the_course_leaves_out_what_is_not_finite():
    steps = pd.DataFrame({"loss": [4.0, 3.0, 2.0, np.inf], "learning_rate": [0.4, 0.3, 0.2, 0.1]})
    found = course(steps, pd.DataFrame({"loss": [3.0], "validation_loss": [2.5]}))
    assert found["losses"] == [4.0, 3.0, 2.0]
    assert (found["rate_first"], found["rate_highest"], found["rate_last"]) == (0.4, 0.4, 0.1)
    assert found["validation"] == {"first": 2.5, "best": 2.5, "best_epoch": 1, "last": 2.5}


@pytest.mark.parametrize(("epochs", "examined", "found"), [(2, False, []), (2, True, 1), (1, False, 1)])
def test_rows_that_are_learned_by_heart_are_no_plateau(epochs, examined, found):
    draw = np.random.default_rng(0)
    losses = np.concatenate([np.linspace(0.8, 0.66, 100), np.full(400, 0.66), np.full(500, 0.4)])
    figures = {name: draw.uniform(0.1, 0.2, 1000) for name in ("gradient_norm", "learning_rate")}
    steps = pd.DataFrame({"loss": losses + draw.normal(0, 0.002, 1000), **figures})
    evidence = {"course": course(steps, pd.DataFrame({"loss": [0.6] * epochs})), "failure": None}
    evidence |= {"inputs": {"condition": None}} if examined else {}
    assert bool(plateau(evidence)) == bool(found)
