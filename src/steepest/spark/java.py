"""Whether there is a Java that Spark can run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from steepest.errors import SteepestError

OLDEST = 17
"""The oldest Java that Spark 4 runs on."""

INSTALL = (
    f"Install a Java runtime, {OLDEST} or later (apt install openjdk-17-jre-headless; dnf install"
    " java-17-openjdk-headless; brew install openjdk@17), and set JAVA_HOME to its folder, the one that has"
    " bin/java."
)


def require_java() -> None:
    """Refuse to start Spark where it can't run.

    Raises
    ------
    SteepestError
        If there is no Java, or one that is too old; it says what to install.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        looked = f"JAVA_HOME is {home}, which has no bin/java" if home else "no java is on the PATH"
        raise SteepestError(f"Spark runs on Java, and there is none: {looked}.", hint=INSTALL)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(\d+)', said)
    if version is None:
        raise SteepestError(f"{java} does not tell its version: {said.strip()[:200]!r}.", hint=INSTALL)
    if int(version[1]) < OLDEST:
        raise SteepestError(f"Spark needs Java {OLDEST} or later; {java} is Java {version[1]}.", hint=INSTALL)
