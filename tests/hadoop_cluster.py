"""A real HDFS, and a real YARN, for the tests: Hadoop's own daemons on 127.0.0.1 at free ports.

``python hadoop_cluster.py`` starts both for a person, until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).with_name("hadoop")

POM = HERE / "pom.xml"
"""Names the version of Hadoop: that of the jars which PySpark brings."""

CLASSPATH = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"


class NoHadoopError(Exception):
    """What is missing for a Hadoop on this machine."""


@dataclass(frozen=True)
class Hadoop:
    """A cluster that runs.

    Parameters
    ----------
    url
        Of its HDFS, which has two data nodes; files have two copies, and blocks of 1 MiB.
    conf
        The folder that HADOOP_CONF_DIR names.
    process
        It obeys lines on its standard input, and ends with it.
    """

    url: str
    conf: Path
    process: subprocess.Popen[str]

    def stop_datanode(self, number: int) -> None:
        """Stop data node 0 or 1, for good."""
        line = f"stop datanode {number}\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()
        assert self.process.stdout.readline() == line


def jars() -> str:
    """Return Hadoop's class path; Maven fetches the 120 MB of jars and keeps them.

    Raises
    ------
    NoHadoopError
        If Java or Maven is missing, or Maven can't fetch.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise NoHadoopError(f"{program} is not installed")
    with tempfile.NamedTemporaryFile("r") as path:
        maven = ["mvn", "--quiet", "--batch-mode", "--file", POM, CLASSPATH, f"-Dmdep.outputFile={path.name}"]
        ran = subprocess.run(maven, check=False, capture_output=True, text=True, timeout=600)
        if ran.returncode:
            raise NoHadoopError(f"Maven can't fetch it: {ran.stdout.strip()[:500]}")
        return path.read()


@contextmanager
def started(folder: Path, yarn: bool) -> Iterator[Hadoop]:
    """Start Hadoop in a folder, until the end of the context."""
    log, pipe = folder / "log", subprocess.PIPE
    java = ["java", "-Xmx1g", "-cp", jars(), HERE / "Cluster.java", folder, *(["yarn"] if yarn else [])]
    with (
        log.open("wb") as errors,
        subprocess.Popen(java, stdin=pipe, stdout=pipe, stderr=errors, text=True) as cluster,
    ):
        try:
            url = cluster.stdout.readline().strip()
            assert url, log.read_text()
            yield Hadoop(url, folder / "conf", cluster)
        finally:
            cluster.stdin.close()
            try:
                cluster.wait(60)
            finally:
                cluster.kill()


@contextmanager
def hadoop(folder: Path, yarn: bool = False) -> Iterator[Hadoop]:
    """Start HDFS, and YARN if asked for, in a folder; skip the test where it can't be had, but fail in CI."""
    import pytest

    try:
        with started(folder, yarn) as cluster:
            yield cluster
    except NoHadoopError as reason:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"a real Hadoop can't be had here: {reason}")


def main() -> None:
    """Run both until Ctrl-C, and say how to use them."""
    with tempfile.TemporaryDirectory(prefix="hadoop-") as folder, started(Path(folder), yarn=True) as cluster:
        print(f"HDFS is {cluster.url}, YARN has two nodes of 6 GB. In another terminal:\n")
        print(f"export HADOOP_CONF_DIR={cluster.conf} SPARK_LOCAL_IP=127.0.0.1\n")
        print("Ctrl-C ends both and removes what they hold.", flush=True)
        try:
            cluster.process.wait()
        except KeyboardInterrupt:
            sys.exit()


if __name__ == "__main__":
    try:
        main()
    except NoHadoopError as reason:
        sys.exit(f"a real Hadoop can't be had here: {reason}")
