# make demo    the main job on the embedded example; the path of its report at the end
# make test    all tests
# make test-unit    those that neither compress for real nor talk to servers, runtimes, browsers
# make test-base    that what needs no torch works in an environment without it
# make test-targets    the environments of all runtimes, and their tests
# make lint    style, types and import contracts
# make coverage   that tests go through every branch of what must not be wrong
# make torture runs killed, refused, damaged; bundles tampered with; readers fuzzed: hours of it,
#              which go on where they were stopped
# make bench   the published measurements; DATA=DIR adds those on real text
# make lock    requirements/*.lock, with hashes; make audit: known vulnerabilities in them
# make sbom    dist/edgeprune.cdx.json, the bill of materials of a release
#
# Each makes .venv on its first call.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RELEASE := .venv/.release

# Those that `targets install` brings; `make test` tests the ones that are there.
RUNTIMES := openvino mnn litert ncnn executorch ort-web

# What takes minutes: whole runs, real servers and runtimes, browsers, faults.
LONG := faults $(addprefix test_,$(addsuffix .py,compress ssh adb arm64 runtimes page_in_browser))

# Whose modules must be gone through by every branch (pyproject.toml).
COVERED := verdict run publish bundle release shell

.PHONY: demo test test-unit test-base test-targets lint coverage torture bench lock audit sbom

# 1 (missed) and 3 (inconclusive) come with a report too.
demo: $(INSTALLED)
	@$(BIN)/edgeprune demo demo; code=$$?; \
	if [ -f demo/run/report.md ]; then echo demo/run/report.md; fi; \
	exit $$code

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile --durations 40

test-unit: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile $(addprefix --ignore=tests/,$(LONG))

# A wheel of its own environment, as a gate in CI installs it.
test-base:
	$(PYTHON) -m venv --clear .venv/base
	.venv/base/bin/pip install -q -c constraints.txt . pytest hypothesis jsonschema
	.venv/base/bin/pytest tests/test_cli.py tests/test_public_names.py

test-targets: $(INSTALLED)
	$(BIN)/edgeprune targets install $(RUNTIMES)
	EDGEPRUNE_REQUIRE_TARGETS="$(RUNTIMES) ort-mobile" $(BIN)/pytest tests/test_runtimes.py

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(INSTALLED)
	$(BIN)/coverage run -m pytest -q $(addprefix tests/test_,$(addsuffix .py,$(COVERED)))
	$(BIN)/coverage report

torture: $(INSTALLED)
	$(BIN)/python benchmarks/torture.py
	$(BIN)/python benchmarks/tamper.py
	$(BIN)/pip install -q -c constraints.txt atheris
	$(BIN)/python benchmarks/fuzz.py

bench: $(INSTALLED)
	$(BIN)/python benchmarks/latency_table.py
	$(BIN)/python benchmarks/bert_base.py
ifdef DATA
	$(BIN)/python benchmarks/compress.py --data $(DATA) --runs runs/bench
endif

lock: $(RELEASE)
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

audit: $(RELEASE)
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/audit.sh

sbom: $(RELEASE)
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements/base.lock --pyproject pyproject.toml \
		--mc-type application --spec-version 1.6 --output-reproducible \
		--output-file dist/edgeprune.cdx.json

# The stamp comes last: an install that was cut short is done again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[demo,dev]'
	touch $@

$(RELEASE): $(INSTALLED)
	$(BIN)/pip install -c constraints.txt -e '.[release]'
	touch $@
