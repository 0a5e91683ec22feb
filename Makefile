# make demo, make test: nothing else is needed than Python 3.11 or later and make.
PYTHON ?= python3
BIN := .venv/bin

GPUS ?= GPU:0,GPU:1

.PHONY: demo test test-integration test-slow test-more test-all test-gpu test-backends fuzz lint format bench docs wheel sdist clean

demo: .venv/demo
	$(BIN)/keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/demo --overwrite

test: .venv/installed
	$(BIN)/pytest

test-integration: .venv/installed
	$(BIN)/pytest -m 'integration and not slow and not rare'

test-slow: .venv/installed
	$(BIN)/pytest -m 'slow and not rare'

# Both in one go, which takes less time than one after the other.
test-more: .venv/installed
	$(BIN)/pytest -m '(integration or slow) and not rare'

test-all: .venv/installed
	$(BIN)/pytest -m ''

# On a machine with GPUs: the tests of several devices on them, then the bandwidth of the choice and a training step.
# TensorFloat-32 would round more than the tests allow for.
test-gpu: .venv/installed
	KERAS_POPUP_TEST_DEVICES=$(GPUS) TF_FORCE_GPU_ALLOW_GROWTH=true NVIDIA_TF32_OVERRIDE=0 \
		$(BIN)/pytest -n 0 -m '' tests/distribution
	$(BIN)/python benchmarks/devices.py --devices $(GPUS)

# Tickets under Keras's other backends. JAX and PyTorch, with 2 GB of CUDA's libraries, are not in the other targets.
test-backends: .venv/installed
	$(BIN)/uv pip install --quiet --python .venv --editable '.[backends]'
	KERAS_POPUP_NEEDS_BACKENDS=1 $(BIN)/pytest -n 0 -m '' tests/tickets/test_backends.py

# Damaged tickets, packs, run folders and search folders. CHUNKS is how many seeds of each; one has some 220 cases.
CHUNKS ?= 50
fuzz: .venv/installed
	KERAS_POPUP_FUZZ=$(CHUNKS) $(BIN)/pytest -m '' tests/test_fuzz.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/inference.py

# The site, for a browser: build/site/index.html. What Sphinx finds amiss is an error.
docs: .venv/installed
	$(BIN)/python docs/site/build.py build/site

# Builds the wheel, installs it with all extras in an empty environment, compares it with the source and trains with it.
wheel: .venv/installed
	rm -rf build dist .venv-wheel
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	$(BIN)/uv pip install --quiet --python .venv-wheel "$$(ls dist/*.whl)[all]"
	.venv-wheel/bin/python -P .ci/check_installed.py keras_popup
	cd dist && ../.venv-wheel/bin/keras-popup train --model fc --dataset digits --epochs 1 --out wheel-run --overwrite
	rm -rf .venv-wheel

# Builds the source distribution, and runs the quick tests from what is in it.
sdist: .venv/installed
	rm -rf build/sdist dist/*.tar.gz
	$(BIN)/python -m build --sdist --outdir dist .
	mkdir -p build/sdist
	tar xzf dist/*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && PYTHONPATH=$$PWD ../../$(BIN)/pytest

# uv, which is installed by pip, does what pip does, in a fifth of the time.
.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv

.venv/demo: setup.cfg | .venv/bin/uv
	@echo "Installing TensorFlow and what the demo needs into .venv: this downloads some 700 MB."
	$(BIN)/uv pip install --quiet --python .venv --editable '.[datasets,plots]'
	touch $@

.venv/installed: setup.cfg pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --quiet --python .venv --editable '.[all,docs,dev]'
	touch .venv/demo $@

clean:
	rm -rf .venv .venv-wheel build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
