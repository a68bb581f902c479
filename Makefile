# `make demo` and `make test` need nothing but Python 3.11 or later; everything goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
DEMO_OUTPUT ?= out
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
REQUIREMENTS := pyproject.toml constraints.txt
KERNELS := $(wildcard kernels/*.toml kernels/*.py kernels/src/*)
WITHOUT_KERNELS := tests/conformance tests/pixels/test_cases_files.py tests/reader tests/masks tests/datasets tests/batches/test_loader.py
SERVICES := tests/docs/test_site.py tests/users tests/viewer/test_page.py tests/viewer/test_jupyterlab.py tests/conformance/test_series.py tests/conformance/test_vendors.py tests/conformance/test_orthanc.py $(shell grep -rlE 'require\("(monai|torchio|wsidicom|dask|ray|loky|datasets|webdataset|ignite)"\)' tests --include='test_*.py')
SERVICES += tests/integrations/test_recipes.py tests/batches/test_frameworks.py
SERVICES += $(shell grep -rlE 'require\("(moto|nginx)"\)' tests --include='test_*.py')

# Programs that tests use, by Debian's names, installed where that can be done: by root, with apt-get, within minutes.
# Tests of those that are absent skip, or fail where DICOMTORCH_REQUIRE names them.
define PROGRAMS
has() { for program; do command -v "$$program" >/dev/null && return 0; done; return 1; }; \
wanted=; \
has chromium chromium-browser || wanted="$$wanted chromium"; \
has nginx /usr/sbin/nginx || wanted="$$wanted nginx-light"; \
{ has Orthanc /usr/sbin/Orthanc /usr/local/sbin/Orthanc && test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so; } \
	|| wanted="$$wanted orthanc,orthanc-dicomweb"; \
can=; if [ -n "$$wanted" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	export DEBIAN_FRONTEND=noninteractive; \
	apt="apt-get -qq -y -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=120"; \
	timeout 180 $$apt update && can=1; fi; \
for some in $$wanted; do packages=$$(echo "$$some" | tr , ' '); \
	{ [ -n "$$can" ] && timeout 600 $$apt install --no-install-recommends $$packages >/dev/null; } || \
		echo "Not installed: $$packages; the tests that need it are skipped."; done
endef

.PHONY: demo test test-services docs long lint format bench lock audit release clean

# Index the files that come with pydicom, load one epoch, print what was found, write a contact sheet.
demo: $(VENV)/.view
	$(BIN)/dicomtorch demo --output $(DEMO_OUTPUT)

# Every test; then, where the compiled kernels could be built, what they have a part in once more without them.
# PYTEST_ARGS="-n 0 -k pixels" and the like go through.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)
	@if $(BIN)/python -c 'import dicomtorch_kernels' 2>/dev/null && [ -z "$(PYTEST_ARGS)" ]; then \
		DICOMTORCH_KERNELS=0 $(BIN)/python -m pytest -n 2 $(WITHOUT_KERNELS); fi

# What needs other programs and libraries beside ours: peers as oracles, scripts as their users write them, a browser.
test-services: $(VENV)/.services
	$(BIN)/python -m pytest -n 2 $(SERVICES) $(PYTEST_ARGS)

# The documentation, in docs/_build/html; nothing is fetched, and a warning is an error.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -n -W --keep-going -b html docs docs/_build/html

# Loops that look for what tests of seconds do not find, some minutes each: mutated streams and indexes, loaders under stress,
# and the compiled kernels built with sanitizers (gcc). LONG_ARGS="--minutes 10 --only stress_batches".
long: $(VENV)/.test
	$(BIN)/python -m tests.long $(LONG_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The main table, a few minutes; BENCH_ARGS="--quick" for a look, "--full" for everything. Results go to out/benchmarks.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# The versions of constraints.txt with the hashes of their files, for whoever installs the development environment with
# `pip install --require-hashes -r requirements.lock`. Needs a network; run it when constraints.txt changes.
lock: $(VENV)/.release
	$(BIN)/uv pip compile pyproject.toml --quiet --all-extras --group dev --group services --constraint constraints.txt \
		--generate-hashes --python-version 3.11.5 --no-annotate --no-header --output-file requirements.lock

# Known vulnerabilities of these versions. Needs a network.
audit: $(VENV)/.release
	$(BIN)/pip-audit --requirement requirements.lock --disable-pip --strict

# sdist and wheel, and the bill of materials of an environment that has the wheel and what it needs: all in dist/.
release: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv dist/environment
	dist/environment/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	$(BIN)/cyclonedx-py environment dist/environment/bin/python --pyproject pyproject.toml --output-file dist/dicomtorch.cdx.json
	rm -rf dist/environment

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build dist docs/_build docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip # `--group` needs a recent one
	@touch $@

$(VENV)/.view: $(VENV)/.pip $(REQUIREMENTS)
	$(PIP) --editable ".[view]"
	@touch $@

$(VENV)/.test: $(VENV)/.pip $(REQUIREMENTS) $(KERNELS)
	$(PIP) --editable ".[all]" --group test
	@$(PIP) ./kernels || echo "The compiled kernels cannot be built here (no C compiler?); their tests are skipped."
	@touch $@

$(VENV)/.services: $(VENV)/.test
	$(PIP) --editable ".[all]" --group services
	rm -rf $(VENV)/torchvision # apart, for the one script that asks for it: beside torch for the CPU others could not import it
	$(PIP) --no-deps --target $(VENV)/torchvision torchvision
	@$(PROGRAMS)
	@touch $@

$(VENV)/.lint: $(VENV)/.pip $(REQUIREMENTS)
	$(PIP) --editable ".[all]" --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.pip $(REQUIREMENTS)
	$(PIP) --editable ".[all]" --group docs
	@touch $@

$(VENV)/.release: $(VENV)/.pip $(REQUIREMENTS)
	$(PIP) --group release
	@touch $@

$(VENV)/.bench: $(VENV)/.pip $(REQUIREMENTS)
	$(PIP) --editable ".[bench]"
	@touch $@
