# From a clone to answers: `make demo`. Each target first sets up .venv, which is quick if nothing has changed.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done

# Variables: make demo PIPELINE=mine.yaml INPUT=/data/tickets OUTPUT=/data/answers ARGS="--limit 20"
DEMO := build/demo
PIPELINE := examples/reviews.yaml
INPUT := $(DEMO)/reviews
OUTPUT := $(DEMO)/answers
# 40 of the 300 reviews, so that the demo takes at most three minutes on two slow cores. ARGS= runs all of them, and
# keeps those that are done. A model this small may leave a dead letter or two in forty rows.
ARGS := --limit 40 --set max_error_rate=0.1
# make test TESTS="tests/cluster/engines/test_models.py -k folder"
TESTS :=

.PHONY: help setup demo test quick check docs docs-serve bench chaos hostile scale airflow clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo       run the example on real reviews and print the answers"
	@echo "make test       run all tests"
	@echo "make quick      run the tests that need neither Ray nor vLLM, in under two minutes"
	@echo "make check      run ruff and mypy, and check the import direction"
	@echo "make docs       build the documentation into build/site (docs-serve: and serve it at http://127.0.0.1:8000)"
	@echo "make bench      compare with Ray Data LLM, bare vLLM and Transformers; about an hour (ARGS=--quick: minutes)"
	@echo "make chaos      run 200 rounds of faults, each followed by the same command again (ARGS=\"--rounds 20 --seed 7\")"
	@echo "make hostile    run 10,000 hostile rows through the real engine and account for each (ARGS=\"--rows 500 --seed 7\")"
	@echo "make scale      measure the driver on a million chunks, and a worker on many (ARGS=\"--shards 10000\")"
	@echo "make airflow    run a week of nights in a real Airflow with an S3 server and a Ray cluster, including failures"
	@echo "make setup      only set up $(VENV)"
	@echo "make clean      remove build files (distclean: also $(VENV))"

setup: $(STAMP)
	@:

$(STAMP): pyproject.toml .setup/setup.sh .setup/install.py .setup/constraints.txt .setup/overrides.txt
	@sh .setup/setup.sh $(VENV)
	@touch $@

demo: $(STAMP)
	@$(PY) examples/corpus.py $(DEMO)
	@$(VENV)/bin/headrace model default >/dev/null
	$(VENV)/bin/headrace run $(PIPELINE) --input $(INPUT) --output $(OUTPUT) $(ARGS)
	$(PY) examples/show.py $(OUTPUT)

test: $(STAMP)
	$(PY) -m pytest $(TESTS)

quick: $(STAMP)
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow" $(TESTS)

check: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_imports.py tests/test_house.py

# Always build all pages: an unchanged page would not repeat its warnings.
docs: $(STAMP)
	$(PY) -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs -d build/doctrees . build/site

docs-serve: docs
	$(PY) -m http.server --bind 127.0.0.1 --directory build/site 8000

# ARGS has a default for the demo; the targets from here on take it only from the command line.
bench: $(STAMP)
	@$(PY) examples/corpus.py $(DEMO)
	@$(VENV)/bin/headrace model default >/dev/null
	$(PY) -m benchmarks $(if $(filter command line,$(origin ARGS)),$(ARGS))

chaos: $(STAMP)
	$(PY) -m tests.chaos $(if $(filter command line,$(origin ARGS)),$(ARGS))

hostile: $(STAMP)
	@$(VENV)/bin/headrace model default >/dev/null
	HEADRACE_ALL_SCHEMAS=1 $(PY) -m pytest tests/end_to_end/test_wild_schemas.py
	$(PY) -m tests.hostile $(if $(filter command line,$(origin ARGS)),$(ARGS))

scale: $(STAMP)
	$(PY) -m tests.scale $(if $(filter command line,$(origin ARGS)),$(ARGS))

airflow: $(STAMP)
	HEADRACE_WEEK=1 $(PY) -m pytest tests/end_to_end/test_airflow.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
