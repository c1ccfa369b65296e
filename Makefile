.PHONY: run test fast check chart fuzz vuln soak clients browsers measure million plot bench bench-compare bench-baseline build image

# The hub with an embedded Redis and a demo page. Needs Go alone.
run:
	@trap stopped=1 INT; go run ./cmd/usercast dev || test "$$stopped"

# Everything but the chart. What the tests need is installed when missing, if possible; tests whose programs are
# missing are listed at the end, and fail with CI=true. The packages that take longest come first, so that none of them
# is left to run alone at the end.
test:
	@.ci/setup
	@.ci/test ./transport/sse ./internal/e2e/... ./transport/redis ./client ./hub ./...

# The unit tests, without external programs and the race detector.
fast:
	go test -short -vet=off ./...

# The Helm chart, rendered by Helm itself: a module of its own, whose tests are for whoever changes the
# chart. The first time, half of Kubernetes has to be compiled: neither optimised nor vetted, that is
# a minute or two, which make test does not have.
chart:
	@.ci/setup
	cd deploy/helm && go test -vet=off '-gcflags=k8s.io/...=-N -l' '-gcflags=sigs.k8s.io/...=-N -l' ./...

# Format, vet, staticcheck, tidy.
check:
	@.ci/check

# Each fuzz test for FUZZTIME, one after the other: for the night. What they have found is in
# testdata/fuzz, and is a part of every test run.
FUZZTIME ?= 60s
fuzz:
	@set -e; for package in $$(go list ./...); do \
		names=$$(go test -list '^Fuzz' $$package); \
		for name in $$(echo "$$names" | grep '^Fuzz' || true); do \
			echo "$$package $$name"; \
			go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# Known faults in what the program is made of. Needs the network, for the list of them.
vuln:
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...

# Hubs of both feeds under faults at random, for MINUTES; SEED repeats a run's choices.
MINUTES ?= 20
soak:
	@.ci/setup
	SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) go test -tags soak -run '^TestSoak$$' -count=1 -timeout 0 -v ./internal/e2e/fleet

# Client libraries with the real hub in all situations, in about four minutes; prints a table. make test runs
# a smoke test of each.
clients:
	@.ci/setup
	go test -tags clients -run '^TestLibrariesInAllSituations$$' -count=1 -v -timeout 15m ./internal/e2e/clients

# The same with a plain EventSource in Chromium, Firefox and WebKitGTK.
browsers:
	@.ci/setup
	go test -tags clients -run '^TestBrowsersInAllSituations$$' -count=1 -v -timeout 15m ./internal/e2e/clients

# What a test can only measure, and the browser module's tests that make test has no time for: needs some
# minutes, and the machine for itself.
measure:
	@.ci/setup
	go test -p 1 -tags measure -run '^TestMeasure' -count=1 -v -timeout 9m ./internal/e2e/attack ./internal/e2e/fleet
	go test -tags measure -count=1 -timeout 9m ./client

# Streams up to a million in memory, and up to 100,000 real ones, in some ten minutes;
# needs the machine for itself, and 2 GB.
MILLION_STREAMS ?= 1000,10000,100000,1000000
million:
	@.ci/setup
	MILLION_STREAMS=$(MILLION_STREAMS) MILLION_PHASE=5s MILLION_CSV=$(CURDIR)/bench/results/million.csv \
		go test -tags measure -run '^TestMeasureMillion$$' -count=1 -v -timeout 20m ./transport/sse
	go run ./bench/manystreams --out bench/results/streams.csv

# Makes the latest results of million the ones to commit, and draws docs/million.svg.
plot:
	@for file in million streams; do \
		if [ -e bench/results/$$file.csv ]; then cp bench/results/$$file.csv bench/$$file.csv; fi; \
	done
	go run ./bench/plot

# The Go benchmarks, in some four minutes; needs the machine for itself. In rounds, so that what the
# machine does meanwhile is in all of them alike.
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

# The committed results beside the latest; how much that says: bench/README.md.
bench-compare:
	@go tool benchstat baseline=bench/baseline.txt latest=bench/results/latest.txt

# Makes the latest results the ones to commit.
bench-baseline:
	grep -E '^(goos|goarch|pkg|cpu|Benchmark)' bench/results/latest.txt >bench/baseline.txt

# A static binary, bin/usercast.
build:
	CGO_ENABLED=0 go build -trimpath -o bin/usercast ./cmd/usercast

image:
	docker build -t usercast .
