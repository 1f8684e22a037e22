"""What went wrong, read from the text of Spark's errors: for a person, and whether to begin again."""

from __future__ import annotations

import json
import re

from steepest.errors import SteepestError
from steepest.spark.stage import MARK
from steepest.worker import from_told

OWN = re.compile(r"WorkerError: (worker .+?)\.?$", re.MULTILINE)
"""What a task says of a worker that was lost."""

GONE = re.compile(r"SparkContext was shut ?down|stopped SparkContext|SparkContext has been shutdown")
"""What Spark says when there is no session any more."""

CANCELLED = re.compile(r"SPARK_JOB_CANCELLED|Job \d+ cancelled|killed via the Web UI")
"""What Spark says when somebody has ended the job."""


def told_in(text: str) -> SteepestError | None:
    r"""Return the error for a person in the text of Spark's; ``None`` where another attempt may go better.

    Examples
    --------
    >>> text = 'Error: steepest-error:{"error": "no rows.", "hint": "Add.", "kind": "SteepestError"} at'
    >>> told_in(text), told_in("Connection reset")
    (SteepestError('no rows. Add.'), None)
    >>> told_in("Traceback ...\nValueError: no such flight\n SQLSTATE: 38000").what
    "Spark can't compute the rows: ValueError: no such flight."
    """
    at = text.find(f"{MARK}{{")
    if at >= 0:
        return from_told(json.JSONDecoder().raw_decode(text, at + len(MARK))[0])
    missing = re.search(r"No module named '(steepest|jax|pyarrow)\b", text)
    if missing:
        return SteepestError(
            f"A worker has no package {missing[1]!r}.",
            hint="Ship the driver's environment to all workers: docs/spark.md says how.",
        )
    if GONE.search(text):
        return session_gone()
    if CANCELLED.search(text):
        return SteepestError("The fit was cancelled in Spark.", hint="The same fit goes on where it was.")
    wrong = _wrong_rows(text)
    if wrong:
        return SteepestError(
            f"Spark can't compute the rows: {wrong}.", hint="Correct them, or what the frame makes of them."
        )
    return None


def session_gone() -> SteepestError:
    """Return the error about a session that has ended, or whose JVM has."""
    return SteepestError(
        "The Spark session ended during the fit.",
        hint="The same fit in another session goes on from the last checkpoint.",
    )


def _wrong_rows(text: str) -> str | None:
    """Return what is wrong in an expression or a function that the rows come from, if something is."""
    if OWN.search(text):
        return None
    # The classes of SQL's states: 22 is for data, 38 for functions that are not SQL's own.
    found = re.search(r"^(?:[\w.]+Exception: )?(\S.*?)\.?\s+SQLSTATE: (?:22|38)\w{3}", text, re.MULTILINE)
    return found and found[1]


def other_rows() -> SteepestError:
    """Return the error about rows that were not the same in a later attempt."""
    return SteepestError(
        "The fit can't go on from its last checkpoint: the rows are not those of the attempt before.",
        hint="If they come out differently each time, write them to storage and fit what is read from there. "
        "The next fit begins anew.",
    )


def reason_in(text: str) -> str:
    r"""Return what a person can use of the text of Spark's error, without the stack.

    Examples
    --------
    >>> reason_in("Job aborted.\n  File x\nsteepest.spark.stage.WorkerError: worker 1 was ended by SIGKILL\n")
    'worker 1 was ended by SIGKILL'
    >>> reason_in("ExecutorLostFailure (executor 0 exited) Reason: Command exited with code 137")
    'executor 0 was lost: Command exited with code 137'
    >>> reason_in(": org.apache.spark.SparkException: Job 7 cancelled \n\tat org.apache...")
    'Job 7 cancelled'
    """
    if own := OWN.search(text):
        return own[1]
    if lost := re.search(r"ExecutorLostFailure \((executor \S+) .*?Reason: (.+?)\.?$", text, re.MULTILINE):
        return f"{lost[1]} was lost: {lost[2]}"
    if "Python worker exited unexpectedly" in text:
        return "the Python process of a worker's task ended unexpectedly"
    named: list[str] = re.findall(
        r"^[\s:]*(?:[\w.]+Error|[\w.]+Exception): (.+?)[.:]?\s*$", text, re.MULTILINE
    )
    return (named or [text.strip().split("\n")[0]])[-1]
