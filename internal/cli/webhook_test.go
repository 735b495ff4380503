package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

const receiverImage = "keyturn-stack:receiver"

// A hooked service receives the deliveries of a webhook, on a Swarm.
type hooked struct {
	*stack
	gh    *githubfake.Server
	calls map[string]bool // ids of events
}

// newHooked deploys the service, whose webhook people made.
func newHooked(t *testing.T) *hooked {
	t.Helper()
	engine := stackEngine(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	name := fmt.Sprintf("hook%d", serial.Add(1))
	h := &hooked{calls: map[string]bool{}, gh: githubfake.Start(t, githubfake.Options{}), stack: &stack{
		shop:   &shop{t: t, name: name, config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")},
		engine: engine, client: engine.Client(), service: name + "_app", secret: name + "_hook", load: filepath.Join(dir, "load")}}
	program, err := testserver.BuildGo(ctx, "./internal/testserver/hookreceiver")
	h.must(err)
	_, err = engine.BuildScratch(ctx, receiverImage, map[string]string{"/hookreceiver": program}, testserver.ImageConfig{Entrypoint: []string{"/hookreceiver"}})
	h.must(err)
	h.must(os.Mkdir(h.load, 0o777))
	app := h.gh.AddApp("keyturn", map[string]string{"repository_hooks": "write"})
	address := fmt.Sprintf("127.0.0.1:%d", testserver.FreePort(t))
	receives := "http://" + address + "/github?from=shop"
	h.gh.AddHook(receives, firstPassword, "push")
	h.must(os.WriteFile(h.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
swarm: {host: "%s", image: "%s"}
github: {app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
credentials:
  %[5]s:
    github:
      webhook: {repository: %[6]s, url: "%[7]s"}
    mounts: dual
    services:
      %[5]s_app:
        file: {HOOK_SECRET_FILE: secret}
    secrets: {secret: %[5]s_hook}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 1s, health-timeout: 60s, timeout: 240s}
`, h.journal, engine.Host(), probeImage, app.ID, name, h.gh.FullName(), receives)), 0o600))
	h.env = append(os.Environ(), "CI=", "GITHUB_API_URL="+h.gh.URL, "KEYTURN_APP_KEY="+string(app.Key().Reveal()), hooks.AtOnce+"=1")
	h.secrets = []string{"ghs_", "eyJhbGciOi", firstPassword}
	one := uint64(1)
	h.serve(swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: h.service},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: receiverImage, Secrets: []*swarm.SecretReference{h.byHand("hook")},
				Env:    []string{"HOOK_SECRET_FILE=/run/secrets/hook", "LISTEN=" + address, "LOG_DIR=/load"},
				Mounts: []mount.Mount{{Type: mount.TypeBind, Source: h.load, Target: "/load"}}},
			Networks: []swarm.NetworkAttachmentConfig{{Target: testserver.HostNetwork}},
		},
		UpdateConfig: &swarm.UpdateConfig{Parallelism: 1, Order: "start-first", Monitor: time.Second},
	})
	return h
}

// pushing has events happen until the test says so.
func (h *hooked) pushing() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			h.calls[h.gh.Happen("push", map[string]any{"ref": "refs/heads/main"})] = true
			select {
			case <-end:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-done; h.gh.Delivered() }
}

// took is how often each event was taken; refused, how many the service refused.
func (h *hooked) took() (taken map[string]int, refused int) {
	h.t.Helper()
	taken = map[string]int{}
	logs, err := filepath.Glob(filepath.Join(h.load, "*.log"))
	h.must(err)
	for _, path := range logs {
		b, err := os.ReadFile(path)
		h.must(err)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case len(f) != 3 || f[1] != "push":
			case f[0] == "204":
				taken[f[2]]++
			default:
				refused++
			}
		}
	}
	return taken, refused
}

// only checks that GitHub has one webhook, that of a version, and that it is active.
func (h *hooked) only(version int) {
	h.t.Helper()
	all := h.gh.Hooks()
	if len(all) != 1 || !all[0].Active || !strings.HasSuffix(all[0].URL, fmt.Sprintf("/github?from=shop&keyturn=v%d", version)) {
		h.t.Fatalf("GitHub has the webhooks %+v, want that of version %d", all, version)
	}
	h.secrets = append(h.secrets, all[0].Secret)
	if n := h.gh.LiveTokens(); n != 0 {
		h.t.Errorf("%d tokens are left alive", n)
	}
}

// TestWebhook rotates the secret of a webhook (with KEYTURN_CRASH=all twice) while events
// are delivered: the service takes every one.
func TestWebhook(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	if r := h.run("prepare", h.name); r.code != 3 || !strings.Contains(r.stderr, "keyturn adopt") {
		t.Errorf("prepare before the adoption: exit %d\n%s", r.code, r.stderr)
	}
	h.ok("adopt", h.name)
	h.ok("doctor")
	stop := h.pushing()
	last := 2
	if os.Getenv("KEYTURN_CRASH") == "all" {
		last = 3
	}
	for version := 2; version <= last; version++ {
		if out := h.ok("plan", h.name); !strings.Contains(out, "webhook") || !strings.Contains(out, "may be delivered twice") {
			t.Errorf("the plan is\n%s", out)
		}
		h.ok("prepare", h.name)
		if all := h.gh.Hooks(); len(all) != 2 || all[1].Active {
			t.Errorf("prepared: %+v", all)
		}
		h.ok("validate", h.name)
		h.ok("cutover", h.name)
		if r := h.run("rollback", "--reason", "drill", h.name); r.code != 3 || !strings.Contains(r.stderr, "cannot be taken back") {
			t.Errorf("rollback: exit %d\n%s", r.code, r.stderr)
		}
		time.Sleep(time.Second)
		h.ok("cleanup", h.name)
		h.only(version)
	}
	// What was only prepared is taken back.
	h.ok("prepare", h.name)
	h.ok("rollback", "--reason", "drill", h.name)
	h.only(last)
	stop()
	taken, refused := h.took()
	lost := 0
	for id := range h.calls {
		if taken[id] == 0 {
			lost++
		}
	}
	t.Logf("%d events, %d refused, %d without a receiver", len(h.calls), refused, lost)
	if refused > 0 || len(h.calls) < 50 || lost > len(h.calls)/20 { // a task that ends may drop a connection that it has not taken yet
		t.Errorf("of %d events %d were refused, and %d did not arrive", len(h.calls), refused, lost)
	}
	b, err := os.ReadFile(h.journal)
	h.must(err)
	h.clean(string(b))
	h.ok("audit", "verify")
}

// TestWebhookCrash kills keyturn around the switch. Whoever goes on leaves one webhook,
// whose deliveries the service takes.
func TestWebhookCrash(t *testing.T) {
	if os.Getenv("KEYTURN_CRASH") != "all" {
		t.Skip("a minute; run it with: make crash")
	}
	t.Parallel()
	for _, point := range []string{"after effect: cutover activate", "before effect: prepare arm", "after effect: prepare arm",
		"before effect: cutover activate", "after effect: cutover move", "after effect: cleanup end"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHooked(t)
			h.ok("adopt", h.name)
			stop := h.pushing()
			h.killed(point, "rotate", "--wait", h.name)
			h.goOn()
			stop()
			h.gh.ExpireTokens() // who was killed gave none back
			h.only(h.status().Current)
			if _, refused := h.took(); refused > 0 {
				t.Errorf("%d events were refused", refused)
			}
		})
	}
}
