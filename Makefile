PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test site test-slow bench bench-spark hadoop lock clean

demo: $(INSTALLED)  ## train on the flights and write runs/demo/report.html
	$(BIN)/python examples/flights.py data/flights.csv
	$(BIN)/steepest fit data/flights.csv --settings examples/flights.toml --out runs/demo --overwrite

test: $(INSTALLED)  ## everything that CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --ignore-glob '*/test_spark_*'
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		$(wildcard tests/test_spark_*.py)  # a session begins in a fresh process, and once for a file

site: $(INSTALLED)  ## build the documentation's site, build/site/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet --conf-dir docs . build/site

test-slow: $(INSTALLED)  ## the campaigns that take longer
	$(BIN)/pytest -m slow --override-ini faulthandler_timeout=1800

bench: $(INSTALLED)  ## print the benchmarks' table and keep it as JSON; installs the peers
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target .venv/keras-nightly keras-nightly
	$(BIN)/python benchmarks/run.py

hadoop: $(INSTALLED)  ## run a real HDFS and YARN on this machine until Ctrl-C (needs Java 17 and Maven)
	$(BIN)/python tests/hadoop_cluster.py

bench-spark: $(INSTALLED)  ## the part of it that is about Spark, and how far it scales
	$(BIN)/python benchmarks/run.py together spark
	$(BIN)/python benchmarks/scaling.py --out docs/scaling.png

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"Steepest needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

lock:  ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header \
		--generate-hashes --extra dev --extra keras --output-file requirements.lock \
		pyproject.toml requirements-build.in

clean:
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
