.PHONY: run test check build image

# The hub with an embedded Redis and a demo page. Needs Go alone.
run:
	@trap stopped=1 INT; go run ./cmd/usercast dev || test "$$stopped"

# Everything: what the tests need is installed when missing.
test: check
	go test -race -shuffle=on -timeout 9m ./...

# Format, vet, staticcheck.
check:
	@.ci/setup
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

# A static binary, bin/usercast.
build:
	CGO_ENABLED=0 go build -trimpath -o bin/usercast ./cmd/usercast

image:
	docker build -t usercast .
