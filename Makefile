# make demo    watch a credential being rotated under load, beside the script people use today
#              (DUAL=1: with the old and the new one mounted from prepare to cutover)
# make test    every test but the long ones below, with real servers; installs what is missing (.ci/install)
# make servers the servers and tools that tests start, built from source or fetched once, into the user's cache
# make crash   the long crash matrix: killed at every point; and the action in containers, on GitHub
# make journeys  whole ways on a real Swarm: by ssh, by TLS, through the overlay, as a workflow
# make faults  the table of docs/design/faults.md: what fails around a rotation, and what comes of it
# make bench   the benchmarks behind docs/benchmarks.md
# make race    the core under the race detector
# make lint    gofmt, go vet, staticcheck, actionlint
# make build   the program: bin/keyturn
# make image   the image of the action and of the probes (IMAGE=keyturn:dev), from the program built here

GO ?= go
export GO

# The linters are built once per version, into the user's cache.
LINT_BIN := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyturn/lint/$(shell sha256sum tools/lint/go.sum | cut -c1-12)
WORKFLOWS := $(filter-out %/cronjob.yml,$(wildcard .github/workflows/*.yml workflows-examples/*.yml))

.PHONY: demo servers test journeys crash faults soak bench race lint build image rootfs install

# The version is what Git says: of a commit that is tagged as a release, the tag.
KEYTURN_VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null)
VERSION_FLAG = $(if $(KEYTURN_VERSION),-X github.com/keyturn/keyturn/internal/cli.Version=$(KEYTURN_VERSION))

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w $(VERSION_FLAG)' -o bin/keyturn ./cmd/keyturn

# What the image holds: the program, the authorities of the web, and a folder for
# temporary files.
CA_CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt
rootfs:
	@test -n "$(ROOTFS)" || { echo "say where: make rootfs ROOTFS=FOLDER" >&2; exit 2; }
	@install -d $(ROOTFS)/etc/ssl/certs && install -d -m 1777 $(ROOTFS)/tmp
	@install -m 644 $(CA_CERTIFICATES) $(ROOTFS)/etc/ssl/certs/ca-certificates.crt
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w $(VERSION_FLAG)' -o $(ROOTFS)/keyturn ./cmd/keyturn

# The last stage of the Dockerfile, without the one that needs a base image.
IMAGE ?= keyturn:dev
image:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	make --no-print-directory rootfs ROOTFS=$$folder/rootfs && \
	sed '/^FROM scratch$$/,$$!d; s# --from=build /rootfs # rootfs #' Dockerfile > $$folder/Dockerfile && \
	docker build --quiet --tag $(IMAGE) $$folder

install:
	@.ci/install

# These compile as the tests' own builds do (testserver.BuildGo), so once.
STATIC := CGO_ENABLED=0 $(GO)

demo: install
	@$(STATIC) run -trimpath -exec $(CURDIR)/.ci/as-root ./internal/demo $(if $(DUAL),-dual)

servers: install
	@$(STATIC) run -trimpath -exec $(CURDIR)/.ci/as-root ./internal/testserver/servers

test: servers
	@.ci/test

faults: servers
	KEYTURN_FAULTS=all KEYTURN_JOURNEYS=all $(STATIC) test -trimpath -exec $(CURDIR)/.ci/as-root -count=1 -timeout 60m \
		-run "FaultMatrix|Failover|EngineRestarts|LeaderIsKilled|NodeIsCutOff|CannotAnswer|SwarmUn|ValidationFails|Outage|WithoutGitHub|Cancel|BetweenPhases|ReleaseAmid|FullDisk|ClocksThatDiffer|Limits|MemberDown|GossipMembers|Contract|AgentDown|ServerDown|ThatStarts|CertificateFaults|AccountKeyFaults|Rollover(LostAnswer|Elsewhere|Refused)|CertManagerFaults|VaultSeal|KeysUnanswered|ConsulThroughSwarm|VaultThroughSwarm" \
		./internal/rotation ./internal/cli ./internal/backend/consul ./internal/backend/kafka ./internal/backend/vault ./internal/backend/certificate ./internal/target/... ./internal/journal/... ./internal/githubapp

# Those that say journey(t), whole or in some of their ways (sampled).
JOURNEYS = $(shell awk '/^func /{name = $$2; sub(/[^A-Za-z].*/, "", name)} /^\t+(journey\(t\)|sampled\(t, .*\))$$/ && name ~ /^Test/{print name}' internal/cli/*_test.go | sort -u | paste -sd '|')
journeys: servers
	KEYTURN_JOURNEYS=all $(STATIC) test -trimpath -exec $(CURDIR)/.ci/as-root -count=1 -timeout 60m -parallel 4 -run "^($(JOURNEYS)|TestPlay)$$" ./internal/cli ./internal/demo

crash: servers
	KEYTURN_CRASH=all KEYTURN_JOURNEYS=all $(STATIC) test -trimpath -exec $(CURDIR)/.ci/as-root -count=1 -timeout 150m -run "Crash|OnGitHub|GitHubJournal|Propose|Webhook" ./...

# How long the soak is; 200 rotations take an hour or two.
SOAK ?= 200
soak: install
	KEYTURN_SOAK=$(SOAK) $(STATIC) test -trimpath -exec $(CURDIR)/.ci/as-root -count=1 -v -timeout 5h -run '^TestSoak$$' ./internal/cli

bench: install
	$(STATIC) test -trimpath -exec $(CURDIR)/.ci/as-root -p 1 -run '^$$' -bench . -benchtime 1x -timeout 60m ./...

lint: $(LINT_BIN)/.stamp
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	$(LINT_BIN)/staticcheck ./...
	$(LINT_BIN)/actionlint -shellcheck= -pyflakes= $(WORKFLOWS)
	@# The one example that is no workflow is held against Kubernetes' own types.
	$(GO) -C tools/k8s run . < workflows-examples/cronjob.yml
	@# What is written to a Certificate is held against cert-manager's own code.
	$(GO) -C tools/certmanager run . $(CURDIR)/internal/backend/certificate/testdata/issuing/*.json $(CURDIR)/docs/backends/certificate.md
	@# The action itself is checked through a workflow that uses it: the one of its page.
	@trap 'rm -f .github/workflows/page.yml' EXIT && \
	sed -n '/^```yaml$$/,/^```$$/{//!p}' docs/action.md | sed 's#keyturn/keyturn@v1#./#' > .github/workflows/page.yml && \
	$(LINT_BIN)/actionlint -shellcheck= -pyflakes= .github/workflows/page.yml

$(LINT_BIN)/.stamp:
	GOBIN=$(LINT_BIN) $(GO) -C tools/lint install tool
	@touch $@

# Every package that starts no server, under the race detector.
race:
	$(GO) test -race -shuffle=on -timeout 30m ./internal/secret ./internal/config ./internal/journal ./internal/rotation/... ./rotated
