"""A real HDFS for the tests: a name node and a data node of Hadoop's own, on 127.0.0.1 at free ports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("hdfs")

CLASSPATH = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"


@contextmanager
def hdfs(folder: Path) -> Iterator[str]:
    """Start HDFS in a folder and give its URL; files have blocks of 1 MiB. Maven keeps the 100 MB of jars."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"a real HDFS needs {program}, which is not installed")
    jars, log = folder / "classpath", folder / "log"
    maven = ["mvn", "--quiet", "--batch-mode", "--file", HERE / "pom.xml", CLASSPATH]
    subprocess.run([*maven, f"-Dmdep.outputFile={jars}"], check=True, timeout=600)
    java = ["java", "-Xmx512m", "-cp", jars.read_text(), HERE / "Cluster.java", folder / "data"]
    pipe = subprocess.PIPE
    with log.open("wb") as errors, subprocess.Popen(java, stdin=pipe, stdout=pipe, stderr=errors) as cluster:
        try:
            port = cluster.stdout.readline().strip().decode()
            assert port, log.read_text()
            yield f"hdfs://127.0.0.1:{port}"
        finally:
            cluster.stdin.close()
            cluster.wait(60)
