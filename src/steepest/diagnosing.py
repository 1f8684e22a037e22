"""`diagnose`: what went well and what did not, of a run, of a result, and of a fit that has just ended."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.errors import SteepestError
from steepest.run import Run, open_run

if TYPE_CHECKING:
    from steepest.prepared import Prepared
    from steepest.result import Result
    from steepest.settings import Settings
    from steepest.trained import Trained


def diagnose(
    descent: Run | Result | str | Path, data: Any = None, validation_data: Any = None
) -> list[dict[str, str]]:
    """Say in findings why a descent went as it did.

    Parameters
    ----------
    descent
        A run or its folder, whose findings were written down when it was made; or what `steepest.minimize`
        returned.
    data, validation_data
        For a result: what `steepest.minimize` was given. At most 4,096 rows of each, evenly spread, are
        looked at.

    Returns
    -------
    list of dict
        ``{"finding", "severity", "evidence", "where", "try"}``, errors first; empty if all is well. See
        `steepest.diagnosis.findings`.

    Raises
    ------
    SteepestError
        If there is no such run, or it has no findings.

    Examples
    --------
    >>> import steepest
    >>> result = steepest.minimize(lambda x: 50 * x**2, 1.0, optimizer=steepest.SGD(0.03), epochs=200)
    >>> [(each["finding"], each["try"]) for each in diagnose(result)]
    [('diverged', '--learning-rate 0.01')]
    """
    from steepest.result import Result

    if isinstance(descent, Result):
        return _of_result(descent, data, validation_data)
    run = descent if isinstance(descent, Run) else open_run(descent)
    return run.findings


def _of_result(result: Result, data: Any, validation_data: Any) -> list[dict[str, str]]:
    from steepest.diagnosis.examination import examine_descent
    from steepest.diagnosis.findings import findings
    from steepest.diagnosis.watching import sample_rows

    asked = result.descended()
    if asked.rows and data is None:
        raise SteepestError(
            "The descent was over data, and diagnose was given none.", hint="Call diagnose(result, data)."
        )
    held_out = None if validation_data is None else sample_rows(validation_data)
    return findings(examine_descent(asked, sample_rows(data), held_out))


def evidence_of(settings: Settings, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Return the evidence of a fit that has just ended; of one that can't be examined, how the loss went."""
    from steepest.diagnosis.course import course
    from steepest.diagnosis.examination import examine

    if trained.descended is None:
        failure = trained.failure and trained.failure.to_json()
        return {"course": course(trained.history, trained.epochs), "failure": failure}
    return examine(
        trained.descended,
        trained.model,
        prepared.task,
        prepared.plan.groups,
        prepared.training,
        prepared.validation,
        asdict(settings),
    )
