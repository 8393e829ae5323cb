# make            build bin/ipfw
# make test       what ipfw promises and its language: unit, golden, differential and
#                 end-to-end tests, in ten minutes on two cores
# make test-peers ipfw with the kernel's IPsec (in user-mode-linux), strongSwan, libreswan
#                 and OpenIKED, in fifteen more; .ci/run runs both
# make fuzz       every fuzz target for FUZZTIME
# make e2e        the end-to-end tests alone; OFFLOAD=none or flow makes all of them use one way
# make attack     attacks on each promise of SECURITY.md, and the table of what was seen
# make bench      ipfw in turn with others: one table of ratios, in about twenty
#                 minutes (QUICK=1: in three; ARGS="-only tcp1,udp64": see -help;
#                 ARGS="-before PATH": beside another build of ipfw)
# make bench-esp  what a sealed and an opened packet cost beside their bare ciphers
# make microbench go test -bench (BENCH=pattern, PKG=./engine/... for some)
# make soak       thirty minutes under load with reloads every few seconds (SOAK=5m)
# make matrix     every suite, mode and family against the Linux kernel's IPsec (ROWS=pattern for some)
# make ike-matrix IKE with the daemons of others, every combination (ROWS=pattern, PART=2/5 for some)
# make ike-model  IKE through 100,000 random schedules (FIRST=20000 SCHEDULES=20000 for some)
# make ike-figures  handshakes, memory, floods; beside strongSwan in the same run
# make ike-rates  of them the handshakes in a second (BEFORE=PATH: beside another build of ipfw)
# make list-figures  lists of 5,000 to 1,000,000 addresses beside nft (as root)
# make kernels    ipfw on the stock kernels of Debian 12, 13 and 14, emulated, and the
#                 table test x kernel (KERNEL=debian-12 ROWS=pattern, PART=2/5 for some)
# make test-kernels  of that what fits eight minutes
# make lint       formatting, vet, staticcheck
#
# As root, make test, test-peers and test-kernels install what the end-to-end tests use (Debian packages,
# listed in e2e/install.sh). As anybody else it runs what it can, and says at
# the end what it skipped and why. With CI=true a skipped test is a failure.

GO       ?= go
FUZZTIME ?= 30s
BENCH    ?= .
PKG      ?= ./...
ROWS     ?= all
TAGS     := $(if $(CLASSBENCH_DIR),-tags classbench)
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

.PHONY: build test test-peers test-kernels kernels unit e2e fuzz bench bench-esp microbench lint race clean soak matrix ike-matrix ike-model ike-figures ike-rates attack list-figures

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ipfw ./cmd/ipfw

test:
	@./e2e/install.sh
	@GO="$(GO)" ./.ci/gotest

test-peers:
	@./e2e/install.sh peers
	@GO="$(GO)" ./.ci/gotest peers

test-kernels:
	@./e2e/install.sh kernels
	@GO="$(GO)" ./.ci/gotest kernels

# Every test that there is for guests, on each kernel, on each way into the queue.
kernels:
	@./e2e/install.sh kernels
	IPFW_KERNELS='$(ROWS)' IPFW_KERNELS_PART='$(PART)' IPFW_KERNEL='$(KERNEL)' $(GO) test -count=1 -v -timeout 6h ./e2e/vm

unit:
	$(GO) test $$($(GO) list ./... | grep -v /e2e)

e2e:
	@./e2e/install.sh peers
	IPFW_E2E_OFFLOAD=$(OFFLOAD) $(GO) test -count=1 -v -timeout 60m $$($(GO) list ./e2e/... | grep -v /e2e/vm)

list-figures:
	IPFW_LIST_FIGURES=1 $(GO) test -count=1 -v -timeout 30m -run TestFigureLists ./cmd/ipfw

attack:
	@./e2e/install.sh
	$(GO) test -count=1 -v -timeout 15m ./e2e/attack

matrix:
	@./e2e/install.sh peers
	IPFW_MATRIX='$(ROWS)' $(GO) test -count=1 -v -timeout 60m -run '^TestXFRM$$' ./e2e

race:
	CGO_ENABLED=1 $(GO) test -race $$($(GO) list ./... | grep -v /e2e)

# Every combination of the matrix with IKE daemons of others, printed. PART=2/5
# plays the second fifth of each site's rows.
ike-matrix:
	@./e2e/install.sh peers
	IPFW_IKE_MATRIX='$(ROWS)' IPFW_IKE_PART='$(PART)' $(GO) test -count=1 -v -timeout 60m ./e2e/peers

# Two cores of ours through 100,000 random schedules.
ike-model:
	IPFW_IKE_FIRST=$(or $(FIRST),0) IPFW_IKE_SCHEDULES=$(or $(SCHEDULES),100000) $(GO) test -count=1 -v -timeout 60m -run TestModel ./ike

# Key exchange in figures: alone, with many SAs, in a flood, and beside strongSwan.
ike-figures:
	@./e2e/install.sh peers
	$(GO) test -run TestMessageSizes -bench 'Responder|SAs|Flood' -v ./ike
	$(GO) test -run '^$$' -bench Responder -benchtime 3000x ./e2e/peers
	IPFW_IKE_FIGURES=1 $(GO) test -count=1 -v -timeout 30m ./e2e/crowd

# Handshakes in a second as responder, in a minute or two.
ike-rates:
	@./e2e/install.sh peers
	IPFW_IKE_FIGURES=1 IPFW_IKE_BEFORE='$(abspath $(BEFORE))' $(GO) test -count=1 -v -timeout 10m -run '^TestRates$$' ./e2e/crowd

fuzz:
	@set -e; for p in $$($(GO) list $(PKG)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
	  done; done

bench:
	@./e2e/install.sh peers
	$(GO) build -o bin/ipfw-bench ./bench
	bin/ipfw-bench $(if $(QUICK),-quick) $(ARGS)

bench-esp:
	@$(GO) test -run '^$$' -bench '^BenchmarkPacket$$' -benchmem -benchtime 100ms -count 3 -timeout 30m ./esp | ./.ci/esptable

microbench:
	$(GO) test $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m $(PKG)

lint:
	@out=$$($(GO)fmt -l .); [ -z "$$out" ] || { echo "not formatted (gofmt -w):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags classbench ./engine/classify
	$(GO) vet -tags guest ./nfq ./e2e
	$(GO) vet -tags soak ./e2e
	$(GO) tool staticcheck ./...

clean:
	rm -rf bin
	$(GO) clean -testcache

# Thirty minutes (SOAK=) under load with reloads every few seconds.
SOAK ?= 30m
soak:
	@./e2e/install.sh
	SOAK=$(SOAK) $(GO) test -tags soak -count=1 -timeout 0 -run '^TestSoak$$' -v ./e2e
