# Every target makes the environment it needs. CI calls these same names.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types imports test demo crash interop-java interop-kafka bench ci clean

help: ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml setup.py streamlog/wire/records_compiled.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev,demo]'
	@touch $@

setup: $(STAMP) ## create .venv with everything the other targets need

fmt: setup ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix --quiet .

lint: setup ## check format, style and spelling
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/codespell

types: setup ## mypy strict and pyright
	@$(BIN)/mypy && $(BIN)/pyright

imports: setup ## check that imports point down
	@$(BIN)/lint-imports

test: setup ## run the tests
	@$(BIN)/pytest -n 2 --dist loadfile

crash: setup ## kill brokers with -9 under load, many times
	@$(BIN)/pytest -m crash

KAFKA_LIBS := target/kafka-libs

$(KAFKA_LIBS)/.stamp: tests/interop_java/pom.xml
	@command -v java >/dev/null || { echo "make interop-java: no java on PATH; install a JDK 17"; exit 1; }
	@command -v mvn >/dev/null || { echo "make interop-java: no mvn on PATH; install Maven, it fetches Apache Kafka's jars"; exit 1; }
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(KAFKA_LIBS)
	@touch $@

interop-java: setup $(KAFKA_LIBS)/.stamp ## compare with Apache Kafka's own code (needs a JDK 17 and Maven)
	@STREAMLOG_KAFKA_LIBS=$(CURDIR)/$(KAFKA_LIBS) $(BIN)/pytest -m interop_java

bench: setup ## measure beside Apache Kafka, Kafka Streams, Faust and Quix (JSON in target/bench)
	@if command -v java >/dev/null && command -v mvn >/dev/null; then $(MAKE) --no-print-directory $(KAFKA_LIBS)/.stamp; \
	else echo "make bench: no JDK 17 and Maven on PATH, so the rows against Apache Kafka are missing"; fi
	@mkdir -p target/bench
	@for name in codec state wire_messages; do $(BIN)/python -m bench.$$name || exit 1; done
	@for name in broker streams; do $(BIN)/python -m bench.$$name --json target/bench/$$name.json || exit 1; done

clean: ## remove the environment and build products
	@rm -rf $(VENV) build target *.egg-info
