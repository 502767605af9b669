# make demo    the main job on the embedded example; the path of its report at the end
# make test    all tests
# make lint    style, types and import contracts
# make torture runs killed, refused, damaged: an hour of it; goes on where it was stopped
# make bench   the published measurements; DATA=DIR adds those on real text
#
# Each makes .venv on its first call.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint torture bench

# 1 (missed) and 3 (inconclusive) come with a report too.
demo: $(INSTALLED)
	@$(BIN)/edgeprune demo demo; code=$$?; \
	if [ -f demo/run/report.md ]; then echo demo/run/report.md; fi; \
	exit $$code

test: $(INSTALLED)
	$(BIN)/pytest

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

torture: $(INSTALLED)
	$(BIN)/python benchmarks/torture.py

bench: $(INSTALLED)
	$(BIN)/python benchmarks/latency_table.py
	$(BIN)/python benchmarks/bert_base.py
ifdef DATA
	$(BIN)/python benchmarks/compress.py --data $(DATA) --runs runs/bench
endif

# The stamp comes last: an install that was cut short is done again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[demo,dev]'
	touch $@
