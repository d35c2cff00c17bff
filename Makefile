# Needs Go, git and make; everything else is set up by the targets themselves.

# Tests and set-up call programs of the system, which a bare environment does not have on PATH.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Go needs a place for its caches.
ifndef HOME
export HOME := $(CURDIR)/.tmp/home
endif

# What is compiled in one folder is then good for its copy in another, such as that of the tour's test.
export GOFLAGS ?= -trimpath

BIN := .tmp/bin
TOOLS := $(BIN)/.built
RULES := .tmp/protovalidate/buf/validate/validate.proto
# Modules of tests whose dependencies the product does not have.
TEST_MODULES := internal/sqlgrammar internal/deployschema
# Under the race detector the embedded database is too slow to run everything; what shares memory
# by itself is here.
RACE_PACKAGES := ./authz/... ./quota/... ./clients/go/...
TIMEOUT := 15m

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

.PHONY: test
test: ## Run all tests; fetches PostgreSQL, Chromium, Prometheus and shells if there are none
	scripts/ensure-postgres
	scripts/ensure-chromium
	scripts/ensure-prometheus
	scripts/ensure-shells
	go test -timeout $(TIMEOUT) ./...
	set -e; for module in $(TEST_MODULES); do (cd $$module && go test -timeout $(TIMEOUT) ./...); done
	@# The race detector needs a C compiler.
	if test "$$(go env CGO_ENABLED)" = 1; then go test -race -timeout $(TIMEOUT) $(RACE_PACKAGES); \
	else echo "no C compiler: the race detector was not run"; fi

.PHONY: lint
lint: vet $(TOOLS) $(RULES) ## Check format, go vet and the contract
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint proto

.PHONY: vet
vet:
	@unformatted=$$(gofmt -l */); \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	set -e; for module in $(TEST_MODULES) tools; do (cd $$module && go vet ./...); done

.PHONY: generate
generate: $(TOOLS) $(RULES) ## Generate Go and docs/errors.md from the contract
	$(BIN)/buf format --write proto
	rm -f proto/purser/v1/*.pb.go
	$(BIN)/buf generate proto

.PHONY: check
check: ## What CI runs: formatting, vet, contract, generated code, all tests
	$(MAKE) --no-print-directory lint generated test

.PHONY: tools
tools: $(TOOLS) $(RULES)

# Compares with a fresh generation beside the tree, so it can be run with changes not committed.
.PHONY: generated
generated: $(TOOLS) $(RULES)
	rm -rf .tmp/generated
	$(BIN)/buf generate --output .tmp/generated proto
	diff -r --exclude='*.proto' --exclude='*_test.go' .tmp/generated/proto proto && \
		diff .tmp/generated/docs/errors.md docs/errors.md || \
		{ echo "what is generated is not that of the contract: make generate"; exit 1; }

.PHONY: bench
bench: ## Run the benchmarks of the engine
	go test -run '^$$' -bench . -benchmem ./quota/...

.PHONY: dist
dist: ## Build the released binaries, checksums and bills of materials into dist/
	scripts/dist

.PHONY: measure
measure: ## Measure all of docs/performance.md again; wants a quiet machine
	scripts/measure

.PHONY: dev
dev: ## Serve on loopback with a store in .tmp
	@mkdir -p .tmp
	go run ./cmd/purser serve --store sqlite:.tmp/dev.db

# Pinned in tools/go.mod; protoc plugins must be those, so nothing on PATH is used.
$(TOOLS): tools/go.mod tools/go.sum tools/protoc-gen-errordoc/main.go
	@mkdir -p $(BIN)
	cd tools && go build -o ../$(BIN)/ github.com/bufbuild/buf/cmd/buf \
		google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc ./protoc-gen-errordoc
	@touch $@

$(RULES): tools/go.mod
	@mkdir -p $(dir $@)
	cd tools && go mod download github.com/bufbuild/protovalidate
	cat "$$(cd tools && go list -m -f '{{.Dir}}' github.com/bufbuild/protovalidate)/proto/protovalidate/buf/validate/validate.proto" > $@
