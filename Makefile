# What a newcomer runs: `make demo`, `make test`. The rest is in CONTRIBUTING.md.
PYTHON ?= python3
VENV ?= .venv
TORCH := torch==2.13.0
WHEEL_LIMIT_MB := 40

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2

.DELETE_ON_ERROR:
.PHONY: help venv demo test test-slow test-page test-floor page lint types docs items system-deps release clean

help:
	@echo "make demo         set up and ask the bundled model's activations three questions"
	@echo "make test         set up and run the fast tests;  make test-slow: the others"
	@echo "make page         the page of augury serve built anew (Node 20);  make test-page: it is as built, and works in Chromium"
	@echo "make test-floor   the fast tests with the oldest transformers that is promised"
	@echo "make lint types   ruff, pyright;  make docs: the documentation;  make release: sdist and wheel"
	@echo "make clean        remove what was built (the environment stays: rm -r $(VENV) removes it)"

# --- the environment -----------------------------------------------------------------------------------------------

# Torch goes first and by itself, so that a CPU build is taken where the machine offers one.
$(VENV)/.torch:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found. Install Python 3.11 or newer (apt-get install python3 python3-venv), or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11. Say make PYTHON=python3.11 (or newer)." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) lacks its venv module, which brings pip. On Debian and Ubuntu: apt-get install python3-venv." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) --version >/dev/null 2>&1 || { echo "make: $(VENV) has no pip. Remove $(VENV) and try again; on Debian and Ubuntu first apt-get install python3-venv." >&2; exit 1; }
	@echo "Installing $(TORCH)"
	@$(INSTALL) '$(TORCH)' || { echo "make: $(TORCH) could not be installed. See pip's message above; make again goes on from here." >&2; exit 1; }
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt src/augury/_version.py | $(VENV)/.torch
	@echo "Installing augury with everything for development"
	@$(INSTALL) -e '.[all,dev]' || { echo "make: the packages could not be installed. See pip's message above; make again goes on from here." >&2; exit 1; }
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: pyproject.toml constraints.txt src/augury/_version.py | $(VENV)/.torch
	@echo "Installing augury"
	@$(INSTALL) -e '.[plot,serve]' || { echo "make: the packages could not be installed. See pip's message above; make again goes on from here." >&2; exit 1; }
	@touch $@

venv: $(VENV)/.all

# --- what to run ---------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo
	$(BIN)/augury models add smollm2
	$(BIN)/python examples/demo.py
	@echo
	@echo "The same in a browser:  $(BIN)/augury serve   then open http://127.0.0.1:8000"

test: venv
	$(PYTEST) -m "not slow and not browser"

test-slow: venv
	$(PYTEST) -m slow

# --- the page of `augury serve` ------------------------------------------------------------------------------------

STATIC := src/augury/server/static
PAGE_LIMIT := 400000

web/node_modules/.ready: web/package-lock.json
	@command -v npm >/dev/null || { echo "make: npm was not found. Install Node.js 20.19 or newer; only to build the page, the wheel brings it built." >&2; exit 1; }
	@cd web && npm ci --silent && touch node_modules/.ready

# Types from the service's own OpenAPI page, and the bundle that the wheel carries.
page: venv web/node_modules/.ready
	$(BIN)/python web/openapi.py > web/openapi.json
	cd web && npm run --silent types && npm run --silent check && npm run --silent test && npm run --silent build

# What is committed is what the sources give; then each of the page's parts in a real browser.
test-page: venv web/node_modules/.ready
	@! grep -q '"resolved"' web/package-lock.json || { echo "make: web/package-lock.json names download addresses" >&2; exit 1; }
	@$(BIN)/python web/openapi.py | diff -q - web/openapi.json || { echo "make: web/openapi.json is not the service's own: make page" >&2; exit 1; }
	cd web && npm run --silent types -- --check && npm run --silent check && npm run --silent test
	cd web && npm run --silent build -- --outDir ../build/page --logLevel warn
	@diff -r build/page $(STATIC) || { echo "make: $(STATIC) is not what web/ gives: make page" >&2; exit 1; }
	@bytes=$$(cat $$(find $(STATIC) -type f) | wc -c); echo "the page: $$bytes bytes"; test "$$bytes" -le $(PAGE_LIMIT)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m browser

# --- other checks --------------------------------------------------------------------------------------------------

# The oldest transformers that is promised, in an environment of its own.
FLOOR := transformers==5.0.0
test-floor:
	@test -x $(VENV)-floor/bin/python || $(PYTHON) -m venv $(VENV)-floor
	@grep -vE '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(VENV)-floor/constraints.txt
	@$(VENV)-floor/bin/python -m pip --disable-pip-version-check install --quiet -c $(VENV)-floor/constraints.txt '$(TORCH)' '$(FLOOR)'
	@$(VENV)-floor/bin/python -m pip --disable-pip-version-check install --quiet -c $(VENV)-floor/constraints.txt '$(FLOOR)' -e '.[all,dev]'
	$(subst $(BIN),$(VENV)-floor/bin,$(PYTEST)) -m "not slow and not browser"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: venv
	$(BIN)/python -m mkdocs build --strict

# The bench's items for the bundled model, as they ship: their labels are facts about that model. A quarter of an hour.
SHIPPED := src/augury/bench/shipped/smollm2
ITEMS := arithmetic lens multiple_choice sycophancy reasoning backtracking system_prompts
items: venv $(ITEMS:%=$(SHIPPED)/%.jsonl)
$(SHIPPED)/%.jsonl:
	$(BIN)/augury bench build $* --size 400 -o $@

# What only the system's packages give: git, Python's venv module, and the browser that the page is tested in.
system-deps:
	@missing=""; \
	command -v git >/dev/null || missing="$$missing git"; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	if [ -z "$$missing" ]; then echo "system-deps: nothing is missing"; exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "make: missing:$$missing. Install them with your system's package manager." >&2; exit 1; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo"; \
	else echo "make: missing:$$missing. As root: apt-get install$$missing" >&2; exit 1; fi; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing

# --- release -------------------------------------------------------------------------------------------------------

release: venv
	rm -rf dist build/smoke
	$(BIN)/python -m build --outdir dist .
	@for wheel in dist/*.whl; do \
	  bytes=$$(wc -c < $$wheel); echo "$$wheel: $$bytes bytes"; \
	  if [ "$$bytes" -gt $$(( $(WHEEL_LIMIT_MB) * 1000 * 1000 )) ]; then echo "make: $$wheel is larger than $(WHEEL_LIMIT_MB) MB" >&2; exit 1; fi; \
	done
	@echo "Trying the wheel in an empty environment"
	@$(PYTHON) -m venv build/smoke
	@build/smoke/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt '$(TORCH)'
	@wheel=$$(echo dist/*.whl); build/smoke/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt "$$wheel[plot,serve]"
	@cd build/smoke && bin/augury --help >/dev/null && bin/augury --version && bin/python -I -c 'import augury; print(augury.__file__)'
	@cd build/smoke && bin/python -I -c 'from augury.data import bank; from augury.oracle.hub import find_oracle; print(len(bank.topics()), "topics,", find_oracle("smollm2"))'
	@cd build/smoke && bin/augury serve --port 0 --json > served.json 2> serve.log & pid=$$!; \
	for i in $$(seq 90); do test -s build/smoke/served.json && break; sleep 1; done; \
	url=$$(build/smoke/bin/python -c 'import json; print(json.load(open("build/smoke/served.json"))["url"])'); \
	build/smoke/bin/python -I -c "import sys, re, httpx2; page = httpx2.get(sys.argv[1]).raise_for_status().text; [httpx2.get(sys.argv[1] + '/' + name).raise_for_status() for name in re.findall(r'\./(assets/[^\"]+)', page)]; print('the page is served')" $$url; \
	ended=$$?; kill $$pid; exit $$ended
	@rm -rf build/smoke

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
