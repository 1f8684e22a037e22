"""Finding the learning rate; most tests are named for what users of other finders complain of."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest
from campaigns import among
from steepest import SGD, Adam, Momentum, find_learning_rate, losses, minimize, models, schedules
from steepest.diagnosis.rates import FEWEST_STEPS, RateSearch, choose, horizon, working

LOSS = losses.binary_cross_entropy()


MODEL = models.linear(30)


def objective(parameters, batch):
    return LOSS.per_row(MODEL.apply(parameters, batch[0]), batch[1])


def logistic(cancer, rows=None):
    return objective, MODEL.init(jax.random.key(0)), tuple(each[:rows].astype(np.float32) for each in cancer)


def bowl(parameters):
    return 5 * parameters["θ"] ** 2


START = {"θ": 1.0}


def test_the_suggestion_is_never_where_the_loss_diverges(cancer):
    """The known finders take the steepest place of one smoothed curve, which may lie beyond the cliff."""
    problem = logistic(cancer)
    search = find_learning_rate(*problem, optimizer=SGD(), batch_size="all", epochs=60)
    result = minimize(*problem, optimizer=SGD(search.choice), batch_size="all", epochs=60)
    assert result.failure is None
    reached = search.losses[search.rates.index(search.choice)]
    best = min(loss for loss in search.losses if loss is not None)
    assert reached - best <= 1e-4 * (search.start_loss - best)
    after = minimize(*problem, optimizer=SGD(1e-12), batch_size="all", epochs=1).history["loss"]
    assert search.start_loss == pytest.approx(after.iloc[0], rel=1e-5)
    final = float(problem[0](result.parameters, problem[2]).mean())
    assert final == pytest.approx(reached, rel=1e-3)


@pytest.mark.parametrize("rule", among([SGD, Momentum, Adam], Adam))
def test_the_choice_is_as_good_as_the_best_of_a_grid(cancer, rule):
    problem = logistic(cancer)
    search = find_learning_rate(*problem, optimizer=rule(), epochs=3)

    def reached(rate):
        result = minimize(*problem, optimizer=rule(float(rate)), epochs=3, tolerance=0)
        values = problem[0](result.parameters, problem[2])
        return float(values.mean())

    grid = [reached(rate) for rate in np.geomspace(1e-6, 10, 15)]
    best = np.nanmin(grid)
    assert reached(search.choice) <= best + max(0.02 * best, 1e-4 * (search.start_loss - best))


def test_it_changes_nothing_so_that_a_descent_after_it_has_the_same_bytes(cancer):
    """Others must restore weights, optimizer, schedule and random state, and forget one of them."""
    _, start, data = logistic(cancer)
    before = [np.array(leaf).tobytes() for leaf in jax.tree.leaves((start, data))]
    rule = Adam(schedules.cosine(0.01, steps=50, warmup_steps=5))
    np.random.seed(7)  # noqa: NPY002 - the state that must stay is the old one
    first = minimize(objective, start, data, optimizer=rule, epochs=3)
    drawn = np.random.get_state()[1].tobytes()  # noqa: NPY002
    find_learning_rate(objective, start, data, optimizer=rule, epochs=3)
    assert np.random.get_state()[1].tobytes() == drawn  # noqa: NPY002
    assert [np.array(leaf).tobytes() for leaf in jax.tree.leaves((start, data))] == before
    second = minimize(objective, start, data, optimizer=rule, epochs=3)
    for one, other in zip(jax.tree.leaves(first.parameters), jax.tree.leaves(second.parameters), strict=True):
        assert np.array(one).tobytes() == np.array(other).tobytes()
    assert first.history.equals(second.history)


def test_it_leaves_no_files(cancer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    find_learning_rate(*logistic(cancer), epochs=2)
    assert not list(tmp_path.iterdir())


def test_it_is_the_same_each_time_and_another_seed_visits_other_rows(cancer):
    searches = [find_learning_rate(*logistic(cancer), epochs=1, seed=seed) for seed in (3, 3, 4)]
    texts = [json.dumps(each.to_json(), sort_keys=True, allow_nan=False) for each in searches]
    assert texts[0] == texts[1]
    assert searches[0].losses != searches[2].losses


@pytest.mark.parametrize("rows", among([1, 2, 33], 1))
def test_few_rows_or_batches_are_no_crash(cancer, rows):
    search = find_learning_rate(*logistic(cancer, rows), epochs=FEWEST_STEPS)
    assert search.decided


def test_a_descent_too_short_to_tell_is_declined_with_the_reason(cancer):
    """Others return None, or the middle of the range, after a handful of steps."""
    search = find_learning_rate(*logistic(cancer, 64), epochs=4)
    assert search.choice is None
    assert not search.decided
    assert search.why == "a descent of 8 steps is too short to tell rates apart; it takes 10"


def test_where_every_rate_diverges_it_says_so():
    search = find_learning_rate(
        lambda p: -jnp.exp(jnp.exp(jnp.exp(p["θ"]))), {"θ": 1.4}, optimizer=SGD(), epochs=99
    )
    assert not search.decided
    assert search.why.startswith("each of 24 rates between 2.31e-14 and 10 diverges")
    assert search.losses == (None,) * 24


def test_where_no_rate_helps_it_says_so():
    """Others suggest a rate from the noise of a flat curve."""
    search = find_learning_rate(lambda p: 1.0 + 0.0 * p["θ"], START, epochs=20)
    assert not search.decided
    assert "lowers the loss, which is 1 at the start" in search.why


def test_a_start_that_is_not_finite_is_named():
    search = find_learning_rate(lambda p: jnp.log(p["θ"]), {"θ": -1.0}, epochs=20)
    assert search.why == "the loss at the start is nan: no rate can mend that"


@pytest.mark.parametrize(("scale", "best"), [(1e10, 1e-10), (1e-5, 1e5)])
def test_a_rate_outside_of_the_usual_decades_is_found_as_well(scale, best):
    """Others take an end of the range that they were told."""
    search = find_learning_rate(
        lambda p: scale / 2 * p["θ"] ** 2, {"θ": 1.0}, optimizer=SGD(), epochs=30, tolerance=0
    )
    assert best / 10 < search.choice < 2 * best
    assert search.losses[search.rates.index(search.choice)] <= 1.1e-4 * search.start_loss
    assert search.limit == pytest.approx(2 * best, rel=1e-4)


def test_the_schedule_is_the_descents_own(cancer):
    """Others try constant rates, whatever the schedule will be."""
    problem = logistic(cancer)
    falling = schedules.polynomial(1.0, steps=54, final=1e-3)
    search = find_learning_rate(*problem, optimizer=SGD(falling), epochs=3, tolerance=0)
    rate = search.choice
    chosen = schedules.polynomial(rate, steps=54, final=1e-3 * rate)
    result = minimize(*problem, optimizer=SGD(chosen), epochs=3, tolerance=0)
    reached = float(problem[0](result.parameters, problem[2]).mean())
    assert reached == pytest.approx(search.losses[search.rates.index(rate)], rel=1e-3)


def test_a_penalty_counts(cancer):
    problem = logistic(cancer)
    search = find_learning_rate(*problem, epochs=5, l2=1.0)
    without = find_learning_rate(*problem, epochs=5)
    assert min(filter(None, search.losses)) > 2 * min(filter(None, without.losses))


def test_rows_of_weight_zero_do_not_count(cancer):
    _, start, (x, y) = logistic(cancer, 200)
    weights = np.repeat([1.0, 0.0], 100)
    wrong = np.where(np.arange(200) < 100, y, 1 - y)
    with_them = find_learning_rate(objective, start, (x, wrong), weights=weights, batch_size="all", epochs=30)
    without = find_learning_rate(objective, start, (x[:100], y[:100]), batch_size="all", epochs=30)
    assert with_them.choice == without.choice
    np.testing.assert_allclose(
        np.array(with_them.losses, float), np.array(without.losses, float), rtol=1e-3, equal_nan=True
    )


def test_layers_of_different_scale_are_descended_on_by_one_rule(cancer):
    """Others crash on, or forget, a second group of parameters."""
    tree, data = {"a": jnp.zeros(30), "b": {"c": jnp.zeros(())}}, logistic(cancer)[2]
    plane = lambda p, batch: LOSS.per_row(batch[0] @ p["a"] + p["b"]["c"], batch[1])  # noqa: E731
    assert find_learning_rate(plane, tree, data, epochs=2).decided


@pytest.mark.parametrize("rule", [SGD(), Momentum(), steepest.Nesterov()], ids=lambda rule: rule.name)
def test_the_limit_is_that_of_the_rule_on_a_quadratic(rule):
    search = find_learning_rate(bowl, START, optimizer=rule, epochs=60)
    beta = rule.settings["momentum"]
    assert search.limit == pytest.approx(
        {"sgd": 2.0, "momentum": 2 + 2 * beta, "nesterov": (2 + 2 * beta) / (1 + 2 * beta)}[rule.name] / 10,
        rel=1e-4,
    )
    assert search.interval[0] <= search.choice <= search.interval[1] <= search.limit


def test_optax_rules_have_a_rate_of_one_and_no_known_limit(cancer):
    import optax

    search = find_learning_rate(*logistic(cancer), optimizer=optax.lion(1e-3), epochs=3)
    assert search.decided
    assert search.limit is None


def test_large_data_is_read_for_the_first_steps_only():
    steps = horizon(10**7, 32, 500)
    assert FEWEST_STEPS <= steps < 0.01 * 10**7
    assert horizon(5_000, 32, 31) == 5_000
    assert horizon(10**4, 256, 10**5) < horizon(10**6, 256, 10**5)


def test_the_lowest_of_equally_good_rates_is_taken_over_a_part_of_a_descent():
    rates, reached = np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.405, 0.4])
    assert choose(rates, reached, 1.0, longer=1)[0] == 2
    assert choose(rates, reached, 1.0, longer=8)[0] == 1


def test_the_interval_ends_where_a_rate_fails():
    reached = np.array([0.3, 0.9, 0.35, 0.3, 0.31, np.nan, 0.3])
    assert working(reached, 1.0, 3) == (2, 4)


def test_a_search_is_told_as_json(cancer):
    found = find_learning_rate(*logistic(cancer), optimizer=SGD(), epochs=2).to_json()
    assert json.loads(json.dumps(found, allow_nan=False))["decided"] is True
    assert list(found["rates"]) == sorted(found["rates"])
    assert len(found["rates"]) == len(found["losses"]) == len(found["curves"]) == 24
    assert RateSearch(None, "no").to_json()["choice"] is None
