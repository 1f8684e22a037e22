"""What several test files share; Keras is an oracle here and computes with JAX."""

from __future__ import annotations

import os
import tempfile

os.environ["KERAS_BACKEND"] = "jax"

# Of what is compiled, tests and the processes that they start need much the same; it goes when the tests end.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="steepest-compiled-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """Keep encoded rows in a folder that goes with the tests, also in processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEPEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def x64():
    """Compute in double precision for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 tumours: 30 standardised features, and 1 where the tumour is benign."""
    features, benign = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(features), benign.astype(float)
