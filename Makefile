# The two that a newcomer wants: make demo, make test. Both need root.

# The binary is static: no C compiler, no libc of ours on the machine it runs on.
export CGO_ENABLED ?= 0

PACKAGES ?= ./...

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## the binary, ./ikepulse
	go build -trimpath -o ikepulse ./cmd/ikepulse

demo: build ## a gateway, a NAT and three clients in namespaces; under a minute
	./ikepulse demo

test: ## every test; installs the Debian packages that the live ones need
	sh .ci/packages strongswan bpftool
	sh .ci/test

test-vm: ## the tests on Linux 6.1 and 6.12, in an emulated machine
	sh .ci/packages vm strongswan
	sh .ci/test vm

generate: ## the BPF objects and their Go mirror, from the C; needs clang-19
	go generate ./bpf ./test/benchxdp

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet -tags vm ./...
	go tool staticcheck -tags vm ./...

race: ## the tests under the race detector; needs a C compiler
	sh .ci/test race

fuzz: ## each fuzz target so many times: FUZZ=100000
	sh .ci/fuzz $(FUZZ)

# Packages whose tests must notice nearly every change of them.
MUTATED ?= $(addprefix ./ike/internal/,policy directory pool halfopen dpd)

mutants: ## one change of the code at a time, for which a test must fail; in about 8 minutes. MUTANTS=-changed: of files that have changed
	@go run ./test/mutants $(MUTANTS) $(MUTATED)

bench-xdp: ## what a frame costs in XDP, and what else it could; in under 3 minutes
	@go run ./test/benchxdp $(BENCH_XDP)

bench-surge: ## what thousands of clients at once cost the gateway, and a flood beside them; in about 8 minutes
	@go run ./test/benchsurge $(BENCH_SURGE)

long: bench-surge ## what takes minutes, and is run by whoever closes an issue: bench-surge, a minute of barriers taken away, and those of 20,000 tunnels
	go test ./cmd/ikepulse -run '^(TestDeletedAgainAndAgain|TestManyClients|TestManySites)$$' -count 1 -v -minute -many 20000

.PHONY: help build demo test test-vm generate lint race fuzz mutants bench-xdp bench-surge long
