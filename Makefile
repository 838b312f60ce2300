# Two commands matter: `make train` and `make test`. Both make .venv on first use.
SHELL := /bin/bash
ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3.10 python3.9 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { echo $$p; break; }; done)
REQUIREMENTS := $(shell if PATH="$$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; \
	then echo requirements.txt; else echo requirements-cpu.txt; fi)
LOCK := --python-version 3.9 --no-annotate --custom-compile-command 'make lock'
READY := .venv/ready-$(REQUIREMENTS)

.PHONY: train test test-slow test-browser bench check docs lock setup

train: setup
	.venv/bin/python train_cifar.py --version fast $(ARGS)

# One process for each core, with a single thread; tests move to whichever is idle.
test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-slow: setup
	.venv/bin/python -m pytest -m slow $(ARGS)

# Chromium and its driver come by apt unless they are installed.
test-browser: setup
	@{ command -v chromium && command -v chromedriver; } >/dev/null \
		|| { apt-get update && apt-get install -y chromium chromium-driver; } >/dev/null \
		|| { echo "error: these tests need chromium and chromedriver, which apt-get could not install; install them by hand"; exit 2; }
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m browser tests/browser $(ARGS)

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/mypy

docs: setup
	.venv/bin/python -W ignore -m sphinx -b html -q -E -W --keep-going docs/api build/api

bench: setup
	.venv/bin/python -m benchmarks $(ARGS)

# Newest versions for Python 3.9 to 3.12 that pyproject.toml allows.
lock: setup
	.venv/bin/uv pip compile --quiet --universal --upgrade $(LOCK) --group gpu -o requirements.txt
	.venv/bin/uv pip compile --quiet --universal --upgrade $(LOCK) --group cpu -o requirements-cpu.txt

setup: $(READY)

$(READY): $(REQUIREMENTS)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || { \
		echo "error: mxnet 1.9.1 needs Python 3.9 to 3.12, found $$("$(or $(PYTHON),python3)" --version 2>&1); try make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "making .venv with $$("$(PYTHON)" --version) and $(REQUIREMENTS)"
	@"$(PYTHON)" -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@
