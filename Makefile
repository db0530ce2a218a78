# Every target makes the environment it needs. CI calls these same names.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types imports test demo sim campaign campaign-page mutants crash power cluster interop-java interop-kafka bench ci clean

help: ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# What an installation depends on: the codec is compiled while installing, where a C compiler is.
INSTALLED := pyproject.toml setup.py streamlog/wire/records_compiled.py

# As pip does for a package that is not editable. Where Python may not write bytecode, every process would compile anew.
COMPILE := $(BIN)/python -m compileall -q streamlog

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "streamlog needs Python 3.11 or later; say which: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip

$(STAMP): $(INSTALLED) | $(BIN)/python
	@echo "installing streamlog and the tools of its tests into $(VENV)"
	@PYTHONWARNINGS=ignore $(PIP) install --quiet -e '.[test,dev,demo]'
	@$(COMPILE)
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: $(INSTALLED) | $(BIN)/python
	@echo "installing streamlog, pandas and the flights into $(VENV)"
	@PYTHONWARNINGS=ignore $(PIP) install --quiet -e '.[demo]'
	@$(COMPILE)
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

demo: $(VENV)/.demo ## a year of flights through workers on an embedded log, checked against pandas
	@$(BIN)/python -m examples.flights_demo

test: setup ## run the tests
	@$(BIN)/pytest -n 2 --dist loadfile

SIM_ARGS = $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),300) --first $(or $(FIRST),0) --json target/sim.json)

sim: setup ## run simulated clusters (SEEDS=300 SIZE=usual; SEED=n replays one, SHRINK=1 makes it smaller, LOGS=1 says more)
	@$(BIN)/python -m streamlog.testing.simulator $(SIM_ARGS) $(if $(SIZE),--size $(SIZE)) $(if $(SHRINK),--shrink) $(if $(LOGS),--logs)

CAMPAIGN := target/campaign.json

campaign: setup ## run many of them, for hours (SHORT=50000 LONG=200 FIRST=0 JOBS=2); goes on where target/campaign.json ends
	@$(BIN)/python -m streamlog.testing.simulator --campaign $(CAMPAIGN) --short $(or $(SHORT),50000) --long $(or $(LONG),200) \
	  --first $(or $(FIRST),0) --jobs $(or $(JOBS),2)

campaign-page: setup ## write docs/campaign.md from the figures of make campaign
	@$(BIN)/python -m streamlog.testing.simulator --campaign $(CAMPAIGN) --page docs/campaign.md

mutants: setup ## plant bugs, see which the simulator catches, write docs/mutants.md
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.sim.hunt $(if $(JOBS),--jobs $(JOBS))

crash: setup ## kill brokers with -9 under load, many times
	@$(BIN)/pytest -m crash

power: setup ## cut the power of brokers under load, many times; as root (figures in target/power.json)
	@$(BIN)/pytest -m power

cluster: setup ## kill, freeze and cut off nodes of a cluster under load (FAULTS=100 SEED=1; figures in target/cluster)
	@$(if $(FAULTS),CLUSTER_FAULTS=$(FAULTS)) $(if $(SEED),CLUSTER_SEED=$(SEED)) $(BIN)/pytest -m cluster -s

KAFKA_LIBS := target/kafka-libs
# Milliseconds that Maven waits for a repository that says nothing; by itself half an hour.
PATIENCE := -Dmaven.wagon.rto=20000 -Daether.connector.connectTimeout=10000 -Daether.connector.requestTimeout=20000

$(KAFKA_LIBS)/.stamp: tests/interop_java/pom.xml
	@command -v java >/dev/null || { echo "no java on PATH; install a JDK 17"; exit 1; }
	@command -v mvn >/dev/null || { echo "no mvn on PATH; install Maven, it fetches Apache Kafka's jars"; exit 1; }
	@mvn -q -B $(PATIENCE) -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(KAFKA_LIBS)
	@touch $@

.PHONY: kafka-libs
kafka-libs: $(KAFKA_LIBS)/.stamp ## fetch Apache Kafka's jars from Maven Central into target/

interop-java: setup $(KAFKA_LIBS)/.stamp ## compare with Apache Kafka's own code (needs a JDK 17 and Maven)
	@STREAMLOG_KAFKA_LIBS=$(CURDIR)/$(KAFKA_LIBS) $(BIN)/pytest -m interop_java

bench: setup ## measure beside Apache Kafka, Kafka Streams, Faust and Quix (JSON in target/bench)
	@if command -v java >/dev/null && command -v mvn >/dev/null; then $(MAKE) --no-print-directory $(KAFKA_LIBS)/.stamp; \
	else echo "make bench: no JDK 17 and Maven on PATH, so the rows against Apache Kafka are missing"; fi
	@mkdir -p target/bench
	@for name in codec state wire_messages; do $(BIN)/python -m bench.$$name || exit 1; done
	@for name in broker cluster streams; do $(BIN)/python -m bench.$$name --json target/bench/$$name.json || exit 1; done

ci: ## everything that has to pass, as .ci/run calls it
	@.ci/run

interop-kafka: setup $(KAFKA_LIBS)/.stamp ## run client, streams and flights on a real Apache Kafka, and compare brokers
	@STREAMLOG_KAFKA_LIBS=$(CURDIR)/$(KAFKA_LIBS) $(BIN)/pytest -m interop_kafka

clean: ## remove the environment and build products
	@rm -rf $(VENV) build target *.egg-info
