# `make` alone builds the programs into bin/.
# FLAGS=... goes to go test, TIME=... is how long each fuzz test runs, FUZZ=...
# says which, as "PACKAGE NAME" matches it.

# A checkout must be stamped with its commit; an unpacked archive has none.
BUILDVCS := $(if $(wildcard .git),true,auto)
FLAGS :=
# Many tests of the programs wait more than they work.
PARALLEL := -parallel 4
TIME := 30s
FUZZ := .
# Recipes to try: all, some with commas, or sample.
RECIPES := all

# One in so many points at which the crash matrix kills a program; 1 is all.
EVERY := 3

.PHONY: loadtest build demo test race crash fuzz recipes systemd nightly bench check cover clean

build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(BUILDVCS) -o bin/ ./cmd/...

demo:
	scripts/demo.sh

test:
	scripts/deps.sh
	go test $(PARALLEL) $(FLAGS) ./...

race:
	scripts/deps.sh
	CGO_ENABLED=1 go test -race $(PARALLEL) $(FLAGS) ./...

# Kills the programs at system calls that change files: see CONTRIBUTING.md.
crash:
	scripts/deps.sh
	DEPLOY_TEST_EVERY_POINT=$(EVERY) go test -count=1 -parallel 8 -run 'CrashMatrix(Agent|Keep|Registry)/^kill' $(FLAGS) ./cmd

fuzz:
	scripts/fuzz.sh $(TIME) '$(FUZZ)'

# Tries the recipes with the real servers, and writes their matrix.
recipes:
	scripts/recipes.sh $(RECIPES) $(FLAGS)

# Boots a systemd in a container and tries units, self-update and the recipes of
# services there, as root.
systemd:
	scripts/systemd/run.sh

# What takes nights: every fault at every system call that changes files, a whole
# stream of 10 GiB, the power cut in the agent's own seams, and an hour for each
# fuzz test.
nightly:
	scripts/deps.sh
	mkdir -p bin
	DEPLOY_TEST_EVERY_POINT=1 DEPLOY_TEST_WHOLE_STREAM=$(CURDIR)/bin go test -count=1 -timeout 12h $(FLAGS) ./...
	go test -count=1 -timeout 1h -tags power -run PowerLoss ./agent
	KEEP=50 scripts/fuzz.sh 1h

bench:
	go test -run '^$$' -bench . -benchmem $(FLAGS) ./...

# How many polls and fetches of so many agents one registry answers, and how fast.
AGENTS := 100
loadtest:
	DEPLOY_TEST_AGENTS=$(AGENTS) go test -run '^$$' -bench 'Load$$' -benchtime 1x $(FLAGS) ./cmd

check:
	scripts/deps.sh
	scripts/check.sh

cover:
	mkdir -p bin
	go test -coverpkg=./... -coverprofile=bin/cover.out $(FLAGS) ./...
	go tool cover -func=bin/cover.out | tail -n 1

clean:
	rm -rf bin
