package github_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// newAPI is a fixture without an ssh server.
func newAPI(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, gh: githubfake.Start(t, githubfake.Options{})}
	f.app = f.gh.AddApp("keyturn", map[string]string{"administration": "write"})
	f.settings = github.Settings{DeployKey: &github.DeployKey{Repository: f.gh.FullName(), Probe: []string{"ssh://git@github.com/octo/shop.git"}}}
	f.options = github.Options{Credential: credential, App: f.connect()}
	return f
}

func (f *fixture) titles() string {
	var out []string
	for _, k := range f.gh.DeployKeys() {
		out = append(out, k.Title)
	}
	return strings.Join(out, ", ")
}

func (f *fixture) line() string {
	f.Helper()
	line, _, err := testserver.NewSSHKey()
	f.must(err)
	return line
}

func post(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/keys")
}
func remove(r *http.Request) bool {
	return r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/keys/")
}

func faulty(of func(*http.Request) bool, f githubfake.Fault) func(*http.Request) *githubfake.Fault {
	return githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
		if !of(r) {
			return nil
		}
		made := f
		return &made
	})
}

// TestDraft looks at everything that is said of a new key.
func TestDraft(t *testing.T) {
	f := newAPI(t)
	b := f.backend()
	x := f.draft(b, 7)
	signer, err := ssh.ParsePrivateKey(x.m["key"].Reveal())
	f.must(err)
	print := ssh.FingerprintSHA256(signer.PublicKey())
	want := rotation.Version{Credential: credential, Number: 7, State: rotation.Pending, Identity: "keyturn orders-git v7", Public: map[string]string{
		"public-key": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), "fingerprint": print, "url": "ssh://git@github.com/octo/shop.git"}}
	if d := cmp.Diff(want, x.Version); d != "" {
		t.Errorf("the version (-want +got):\n%s", d)
	}
	if signer.PublicKey().Type() != ssh.KeyAlgoED25519 || !strings.HasPrefix(string(x.m["key"].Reveal()), "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("the key is a %s", signer.PublicKey().Type())
	}
	if d := cmp.Diff([]string{"fingerprint", "key", "public-key", "url"}, x.m.Fields()); d != "" || !cmp.Equal(x.m.Fields(), f.settings.Fields()) {
		t.Errorf("the fields (-want +got):\n%s", d)
	}
	if y := f.draft(b, 7); y.Public["fingerprint"] == x.Public["fingerprint"] {
		t.Errorf("two drafts are the same key")
	}
}

// Hard problem 4: the call succeeded, but its answer was lost.
func TestLostAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		fault githubfake.Fault
		added bool
	}{
		"done, and the connection broke":     {githubfake.Fault{Do: true, Lose: true}, true},
		"done, and GitHub said 502":          {githubfake.Fault{Do: true, Status: http.StatusBadGateway}, true},
		"not done, and the connection broke": {githubfake.Fault{Lose: true}, false},
		"not done, and GitHub said 500":      {githubfake.Fault{Status: http.StatusInternalServerError}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(t)
			b := f.backend()
			x := f.draft(b, 1)
			back := f.gh.On(faulty(post, tt.fault))
			err := b.Arm(t.Context(), x.Version, x.m, time.Time{})
			if tt.added != (err == nil) || err != nil && rotation.ClassOf(err) != rotation.Unknown {
				t.Errorf("Arm = %v of class %d, added: %t", err, rotation.ClassOf(err), tt.added)
			}
			back()
			f.must(b.Arm(t.Context(), x.Version, x.m, time.Time{}))
			if got := f.titles(); got != "keyturn orders-git v1" {
				t.Errorf("GitHub has %s", got)
			}
			back = f.gh.On(faulty(remove, tt.fault))
			err = b.End(t.Context(), x.Version, rotation.ToRetire)
			if tt.added != (err == nil) || err != nil && rotation.ClassOf(err) != rotation.Unknown {
				t.Errorf("End = %v of class %d, deleted: %t", err, rotation.ClassOf(err), tt.added)
			}
			back()
			f.must(b.End(t.Context(), x.Version, rotation.ToRetire))
			if got := f.titles(); got != "" {
				t.Errorf("GitHub has %s", got)
			}
		})
	}
}

// TestArmLate is a call that was answered by nobody, and applied after it was looked
// after: the end of its version finds the key by its fingerprint.
func TestArmLate(t *testing.T) {
	f := newAPI(t)
	b := f.backend()
	x := f.draft(b, 1)
	back := f.gh.On(faulty(post, githubfake.Fault{Lose: true}))
	if err := b.Arm(t.Context(), x.Version, x.m, time.Time{}); rotation.ClassOf(err) != rotation.Unknown {
		t.Fatalf("Arm = %v, want unknown", err)
	}
	back()
	f.gh.AddDeployKey("keyturn[bot]", "keyturn orders-git v1", x.Public["public-key"], true)
	f.must(b.End(t.Context(), x.Version, rotation.ToDiscard))
	if got := f.titles(); got != "" {
		t.Errorf("GitHub has %s", got)
	}
}

// Hard problem 15: a key that is not ours is never deleted, whatever it is called.
func TestOthersKeysAreLeftAlone(t *testing.T) {
	f := newAPI(t)
	b := f.backend()
	f.gh.AddDeployKey("alice", "deploys", f.line(), true)
	x := f.arm(b, 1)
	f.gh.AddDeployKey("alice", "keyturn orders-git v1", f.line(), true)
	f.must(b.End(t.Context(), x.Version, rotation.ToRetire))
	f.must(b.End(t.Context(), x.Version, rotation.ToRetire))
	if got := f.titles(); got != "deploys, keyturn orders-git v1" {
		t.Errorf("GitHub has %s, want alice's keys", got)
	}

	// One who rotates the same keys by another record is noticed before anything is done.
	_, err := b.Identify(t.Context(), rotation.Version{Credential: credential, Number: 1}, nil)
	if rotation.ClassOf(err) != rotation.Refused || err == nil || !strings.Contains(err.Error(), "somebody else rotates") {
		t.Errorf("Identify = %v, want a refusal", err)
	}
	if v, err := b.Identify(t.Context(), rotation.Version{Credential: credential, Number: 2}, nil); err != nil || v.Identity != "keyturn orders-git v2" {
		t.Errorf("Identify = %+v, %v", v, err)
	}
}

// TestArmRepairsNothing refuses a key that is there with other rights.
func TestArmRepairsNothing(t *testing.T) {
	f := newAPI(t)
	b := f.backend()
	x := f.draft(b, 1)
	f.gh.AddDeployKey("alice", "mine", x.Public["public-key"], false)
	if err := b.Arm(t.Context(), x.Version, x.m, time.Time{}); err == nil || !strings.Contains(err.Error(), "may push") {
		t.Errorf("Arm = %v, want an error", err)
	}
	// Another repository has it: GitHub takes a key once.
	other := f.gh.AddRepo("octo/other")
	y := f.draft(b, 2)
	other.AddDeployKey("alice", "mine", y.Public["public-key"], true)
	err := b.Arm(t.Context(), y.Version, y.m, time.Time{})
	if rotation.ClassOf(err) != rotation.Failed || err == nil || !strings.Contains(err.Error(), "key is already in use") {
		t.Errorf("Arm = %v, want that the key is in use", err)
	}
}

// TestMany finds a key behind more than one page of others.
func TestMany(t *testing.T) {
	f := newAPI(t)
	for range 130 {
		f.gh.AddDeployKey("alice", "one of many", f.line(), true)
	}
	b := f.backend()
	x := f.arm(b, 1)
	if st, err := b.Observe(t.Context(), x.Version); err != nil || st.Status != rotation.Armed || !strings.Contains(st.Detail, "never used") {
		t.Errorf("Observe = %+v, %v", st, err)
	}
	f.gh.UseKeys()
	if st, err := b.Observe(t.Context(), x.Version); err != nil || !strings.Contains(st.Detail, "last used 20") {
		t.Errorf("Observe = %+v, %v", st, err)
	}
	f.must(b.End(t.Context(), x.Version, rotation.ToRetire))
	if n := len(f.gh.DeployKeys()); n != 130 {
		t.Errorf("%d keys are left, want 130", n)
	}
}

// TestCompare notices that the configuration gave another right.
func TestCompare(t *testing.T) {
	f := newAPI(t)
	one := f.arm(f.backend(), 1)
	two := f.arm(f.backend(), 2)
	f.must(f.backend().Compare(t.Context(), two.Version, one.Version))
	no := false
	f.settings.DeployKey.ReadOnly = &no
	three := f.arm(f.backend(), 3)
	if err := f.backend().Compare(t.Context(), three.Version, two.Version); err == nil || !strings.Contains(err.Error(), `v3", may push`) {
		t.Errorf("Compare = %v, want a difference", err)
	}
	if w, err := f.backend().Warnings(t.Context(), credential); err != nil || len(w) != 2 || !strings.Contains(w[1], "may push to octo/shop") {
		t.Errorf("Warnings = %q, %v", w, err)
	}
}

// TestAdopt takes over the key that the settings name, and no other.
func TestAdopt(t *testing.T) {
	one := rotation.Version{Credential: credential, Number: 1}
	f := newAPI(t)
	line := f.line()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	f.must(err)
	print := ssh.FingerprintSHA256(key)
	for _, tt := range []struct {
		name, title, adopt string
		readOnly           bool
		want               string
	}{
		{"not named", "deploys", "", true, `it has "deploys" SHA256:`},
		{"another", "deploys", "SHA256:" + strings.Repeat("A", 43), true, "has no deploy key with the fingerprint"},
		{"it may push", "deploys", print, false, "may push"},
		{"a later version", "keyturn orders-git v4", print, true, "a later version"},
		{"it", "deploys of v1", print, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newAPI(t)
			f.gh.AddDeployKey("alice", tt.title, line, tt.readOnly)
			f.settings.DeployKey.Adopt = tt.adopt
			b := f.backend()
			v, err := b.Adopt(t.Context(), one)
			if tt.want != "" {
				if rotation.ClassOf(err) != rotation.Refused || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Adopt = %v, want a refusal: %q", err, tt.want)
				}
				return
			}
			f.must(err)
			if v.Identity != "deploys of v1" || v.Public["fingerprint"] != print {
				t.Errorf("Adopt = %+v", v)
			}
			if _, err := b.Adopt(t.Context(), rotation.Version{Credential: credential, Number: 1, Public: map[string]string{"url": "ssh://git@github.com/octo/old.git"}}); err == nil {
				t.Errorf("Adopt takes services that clone another repository")
			}
			two := f.arm(b, 2)
			f.must(b.Compare(t.Context(), two.Version, v))
			f.must(b.End(t.Context(), v, rotation.ToRetire))
			if got := f.titles(); got != "keyturn orders-git v2" {
				t.Errorf("GitHub has %s", got)
			}
		})
	}
}

// TestPreflight is refused for whatever would make the adding of a key fail.
func TestPreflight(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*fixture)
		class rotation.Class
		want  string
		hint  string
	}{
		"the App may only read": {func(f *fixture) { f.app.Permissions["administration"] = "read" }, rotation.Refused, "lacks administration: write", "Permissions & events"},
		"switched off by the organisation": {func(f *fixture) {
			f.gh.AddDeployKey("alice", "deploys", f.line(), true)
			f.gh.SwitchKeysOff(true)
		}, rotation.Refused, "switched off by its organisation", "settings of the organisation"},
		"archived": {func(f *fixture) { f.gh.Archive() }, rotation.Refused, "is archived", "unarchive"},
		"gone":     {func(f *fixture) { f.settings.DeployKey.Repository = "octo/gone" }, rotation.Failed, "404 Not Found", "may not see it"},
		"the token of one who may only write": {func(f *fixture) {
			f.gh.AddUser("bob", "write")
			f.options.App = f.plain("bob")
		}, rotation.Refused, "may not administer octo/shop", "administrator of the repository"},
		"GitHub is down": {func(f *fixture) {
			f.gh.On(func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Status: http.StatusServiceUnavailable} })
		}, rotation.Unknown, "503", ""},
		"all is well": {func(*fixture) {}, 0, "", ""},
		"all is well with a token": {func(f *fixture) {
			f.gh.AddUser("carol", "admin")
			f.options.App = f.plain("carol")
		}, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(t)
			tt.spoil(f)
			err := f.backend().Preflight(t.Context(), rotation.Credential{})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Preflight = %v, want success", err)
			case tt.want == "":
			case err == nil || rotation.ClassOf(err) != tt.class || !strings.Contains(err.Error(), tt.want):
				t.Errorf("Preflight = %v of class %d, want %q of class %d", err, rotation.ClassOf(err), tt.want, tt.class)
			case !strings.Contains(rotation.HintOf(err), tt.hint):
				t.Errorf("the hint is %q, want %q", rotation.HintOf(err), tt.hint)
			}
			for _, c := range f.gh.Calls() {
				if c.Write() && !strings.HasSuffix(c.Path, "/access_tokens") {
					t.Errorf("Preflight wrote: %s %s", c.Method, c.Path)
				}
			}
		})
	}
}

// TestExamine lists the keys under the credential's title, and minds a third one.
func TestExamine(t *testing.T) {
	f := newAPI(t)
	f.gh.AddDeployKey("alice", "deploys", f.line(), true)
	for n := 1; n <= 3; n++ {
		f.arm(f.backend(), n)
	}
	got, err := f.backend().Examine(t.Context())
	if err != nil || len(got) != 4 || got[3].Level != rotation.Warning || !strings.Contains(got[3].Text, "3 keys") {
		t.Errorf("Examine = %+v, %v", got, err)
	}
}

// TestNothingIsKnownByItsTitle looks for a version whose key was never drafted: what
// has its title is somebody else's.
func TestNothingIsKnownByItsTitle(t *testing.T) {
	f := newAPI(t)
	b := f.backend()
	v, err := b.Identify(t.Context(), rotation.Version{Credential: credential, Number: 1}, nil)
	f.must(err)
	f.gh.AddDeployKey("alice", v.Identity, f.line(), true)
	if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Absent {
		t.Errorf("Observe = %+v, %v, want absent", st, err)
	}
	f.must(b.End(t.Context(), v, rotation.ToDiscard))
	if got := f.titles(); got != v.Identity {
		t.Errorf("GitHub has %q, want alice's key", got)
	}
}
