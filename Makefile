.PHONY: run test fast check chart fuzz vuln simulate mutations soak clients browsers measure million plot bench bench-compare bench-baseline build image

# Runs the hub with an embedded Redis and a demo page. Needs only Go.
run:
	@trap stopped=1 INT; go run ./cmd/usercast dev || test "$$stopped"

# Runs all tests except those of the chart. Missing programs are installed if possible. Tests that need programs that are
# still missing are listed at the end, and fail with CI=true. The packages that wait longest come first, so that none of
# them runs alone at the end.
test:
	@.ci/setup
	@.ci/test ./transport/redis ./transport/sse ./cmd/usercast ./transport/redis/inspect ./internal/e2e/... ./client ./hub ./...

# Runs the unit tests, without external programs and the race detector.
fast:
	go test -p $$((2 * $$(getconf _NPROCESSORS_ONLN))) -short -vet=off ./...

# Runs the tests of the Helm chart, which render it with Helm. They are a separate module that is not part of make test,
# because the first run compiles much of Kubernetes: one to two minutes, even without optimization and vet.
chart:
	@.ci/setup
	cd deploy/helm && go test -vet=off '-gcflags=k8s.io/...=-N -l' '-gcflags=sigs.k8s.io/...=-N -l' ./...

# Checks formatting, go vet, staticcheck and go mod tidy.
check:
	@.ci/check

# Runs each fuzz test for FUZZTIME, one after the other; run it overnight. Inputs that they have found are in
# testdata/fuzz, and every test run includes them.
FUZZTIME ?= 60s
fuzz:
	@set -e; for package in $$(go list ./...); do \
		names=$$(go test -list '^Fuzz' $$package); \
		for name in $$(echo "$$names" | grep '^Fuzz' || true); do \
			echo "$$package $$name"; \
			go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# Checks the dependencies and the standard library for known vulnerabilities. Needs internet access.
vuln:
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...

# Simulates a fleet of hubs with random faults, with SEEDS seeds per class from FIRST on; CLASS selects one class.
# make test does the same with fewer seeds.
SEEDS ?= 2000
simulate:
	SIM_SEEDS=$(SEEDS) SIM_FIRST=$(FIRST) SIM_CLASS=$(CLASS) \
		go test -run '^TestPagesReceiveEachMessageOrAJustifiedGap$$' -count=1 -timeout 0 -v ./transport/redis/internal/fleetsim

# Takes one rule after the other out of the code, and checks that a test fails. This takes several minutes.
mutations:
	go test -tags mutations -run '^TestMutationsAreFound$$' -count=1 -timeout 0 -v ./internal/mutationtest

# Runs hubs of both feeds with random failures for MINUTES, and 2,000 pages that move between hubs. SEED repeats the
# failures of a run.
MINUTES ?= 20
soak:
	@.ci/setup
	SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) go test -run '^TestSoak$$' -count=1 -timeout 0 -v ./internal/e2e/fleet

# Tests client libraries with the real hub in all situations, and prints a table. This takes about four minutes.
# make test runs a smoke test of each library.
clients:
	@.ci/setup
	go test -tags clients -run '^TestLibrariesInAllSituations$$' -count=1 -v -timeout 15m ./internal/e2e/clients

# Tests a plain EventSource in Chromium, Firefox and WebKitGTK in the same situations.
browsers:
	@.ci/setup
	go test -tags clients -run '^TestBrowsersInAllSituations$$' -count=1 -v -timeout 15m ./internal/e2e/clients

# Runs tests that only measure, and tests of the browser module that are too slow for make test. This takes several
# minutes. Run nothing else on the machine.
measure:
	@.ci/setup
	go test -p 1 -tags measure -run '^TestMeasure' -count=1 -v -timeout 9m ./internal/e2e/attack ./internal/e2e/fleet
	go test -tags measure -count=1 -timeout 9m ./client

# Measures up to a million streams in memory, and up to 100,000 over TCP. This takes about ten minutes and 2 GB of
# memory. Run nothing else on the machine.
MILLION_STREAMS ?= 1000,10000,100000,1000000
million:
	@.ci/setup
	MILLION_STREAMS=$(MILLION_STREAMS) MILLION_PHASE=5s MILLION_CSV=$(CURDIR)/bench/results/million.csv \
		go test -tags measure -run '^TestMeasureMillion$$' -count=1 -v -timeout 20m ./transport/sse
	go run ./bench/manystreams --out bench/results/streams.csv

# Copies the latest results of make million to bench/, where they are committed, and draws docs/million.svg.
plot:
	@for file in million streams; do \
		if [ -e bench/results/$$file.csv ]; then cp bench/results/$$file.csv bench/$$file.csv; fi; \
	done
	go run ./bench/plot

# Runs the Go benchmarks, which takes about four minutes. Run nothing else on the machine. They run in rounds, so that
# variations of the machine's speed affect all of them equally.
BENCHTIME ?= 0.8s
ROUNDS ?= 10
bench:
	go test -c -o bench/results/ ./hub ./transport/sse ./transport/redis
	@(for round in $$(seq $(ROUNDS)); do \
		echo "round $$round of $(ROUNDS)" >&2; \
		for package in hub sse redis; do \
			bench/results/$$package.test -test.bench . -test.run '^$$' -test.benchtime $(BENCHTIME) -test.timeout 5m || exit; \
		done; \
	done) >bench/results/running.txt || { cat bench/results/running.txt; exit 1; }
	@mv bench/results/running.txt bench/results/latest.txt
	@go tool benchstat bench/results/latest.txt

# Compares the committed results with the latest. For the limits of this comparison, see bench/README.md.
bench-compare:
	@go tool benchstat baseline=bench/baseline.txt latest=bench/results/latest.txt

# Copies the latest results to bench/baseline.txt, which is committed.
bench-baseline:
	grep -E '^(goos|goarch|pkg|cpu|Benchmark)' bench/results/latest.txt >bench/baseline.txt

# Builds a static binary, bin/usercast.
build:
	CGO_ENABLED=0 go build -trimpath -o bin/usercast ./cmd/usercast

image:
	docker build -t usercast .
