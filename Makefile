# make demo   build, install into .venv and run the benchmark (the two-command start)
# make test   lint, type check, all tests; what CI runs
# make lint   formatting, ruff, mypy, clang-format
# make format rewrite the sources in the project's format
# make fuzz   a million mutated index files, under sanitizers (FUZZ=runs)
# make tsan   the engine under ThreadSanitizer, half a minute of searches beside changes
# make asan   the same under AddressSanitizer and UBSan
# make dist   sdist and wheel in dist/
# make gpu-check   what needs a GPU, in eight minutes and without network, of wheels in WHEELS;
#             results in OUT (docs/gpu.md)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS ?= wheels
OUT ?= gpu-check-out
ENGINE := $(shell find faiss_dmih/engine -name '*.?pp')
FUZZ ?= 1000000
OTHERS := $(shell find cuda tests -name '*.cu' -o -name '*.cuh' -o -name '*.?pp')

.PHONY: demo test lint format tsan asan fuzz dist gpu-check clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/faiss-dmih bench

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(ENGINE) $(OTHERS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(ENGINE) $(OTHERS)

fuzz:
	$(PYTHON) tests/fuzz/build.py build/fuzz
	cd build/fuzz && ./fuzz $(CURDIR)/tests/fuzz/seeds runs $(FUZZ)

tsan asan: $(VENV)/.installed-dev
	DMIH_SANITIZED_SECONDS=10 $(BIN)/python -m pytest -s tests/test_sanitizers.py -k $@

dist: $(VENV)/.installed-dev
	$(BIN)/python -m build --outdir dist .

gpu-check:
	$(PYTHON) tests/gpu/check.py --wheels $(WHEELS) --out $(OUT)

# Debian keeps venv's pip in a package of its own; where it is missing, virtualenv does the same.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && \
	  $(PYTHON) -m pip install --quiet --target build/virtualenv virtualenv && \
	  PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }

# Editable: Python sources are used in place, a change of the engine builds it anew.
$(VENV)/.installed: $(BIN)/python pyproject.toml CMakeLists.txt $(ENGINE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,bench]'
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml CMakeLists.txt $(ENGINE)
	DMIH_WERROR=ON $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,bench,train,dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf build dist $(VENV)
