# `make demo` and `make test` need Python 3.11 or later and nothing else: what is missing is set up.
# On macOS windows open on the screen, as there is no virtual one.

PYTEST_ARGS ?=
READY := .venv/.ready
PY := .venv/bin/python
ifeq ($(shell uname),Linux)
SCREEN := xvfb-run -a -s "-screen 0 1280x800x24"
endif

.PHONY: help setup demo test coverage lint format screenshot gallery docs wheel clean
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## set up system libraries and .venv, once
	@scripts/system_libraries.sh $(PY)

$(READY): pyproject.toml constraints.txt scripts/environment.sh scripts/system_libraries.sh
	@scripts/environment.sh
	@touch $@

demo: setup  ## run the bundled model on the bundled volume and look at it
	@$(PY) -m napari_attention_unet demo

test: setup  ## run all tests, those in a real viewer included
	$(SCREEN) $(PY) -m pytest $(PYTEST_ARGS)

coverage: setup  ## run all tests and measure which lines they reach
	$(SCREEN) $(PY) -m pytest --cov --cov-report=term $(PYTEST_ARGS)

lint: $(READY)  ## check style, types and the manifest
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/npe2 validate napari_attention_unet

format: $(READY)  ## put the code into the project's style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

screenshot: setup  ## take the README's pictures from the live plugin
	$(SCREEN) $(PY) -m napari_attention_unet demo --no-window --output build/screenshot
	mkdir -p docs/images
	cp build/screenshot/viewer.png docs/images/screenshot.png
	cp build/screenshot/viewer-light.png docs/images/screenshot-light.png

gallery: $(READY)  ## take the pictures of the gallery by running its scripts
	mkdir -p docs/images/gallery
	for script in docs/gallery/*.py; do $(PY) $$script docs/images/gallery/$$(basename $$script .py).png || exit 1; done

docs: $(READY)  ## build the documentation's site into site/
	$(PY) -m pip install --quiet --group docs
	$(PY) -m mkdocs build --strict

wheel: $(READY)  ## build source and wheel distributions into dist/
	$(PY) -m build --outdir dist .

clean:  ## remove what was built here, .venv excepted
	rm -rf build dist site htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache attention-unet-demo
