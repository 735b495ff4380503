package vault_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// TestAdopted rotates from a secret-id that was made by hand: the next one is made like it,
// and the tokens of the old one end with it, those of the others do not.
func TestAdopted(t *testing.T) { onBoth(t, adopted) }

func adopted(t *testing.T, f *fixture) {
	old := f.byHand(map[string]any{"metadata": `{"team":"orders"}`, "cidr_list": []string{"127.0.0.0/8"}, "token_bound_cidrs": []string{"127.0.0.0/8"}})
	other := f.byHand(nil) // somebody else's
	b := f.backend(func(s *vault.Settings) { s.AppRole.Adopt = old.Accessor })
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	one, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
	f.must(err)
	if one.Identity != old.Accessor || one.Public["role_id"] == "" || strings.Contains(one.Public["metadata"], "team") {
		t.Fatalf("adopted is %+v, want accessor %s, the role-id, and nothing of the metadata", one, old.Accessor)
	}
	m1 := rotation.Material{"secret_id": secret.FromString(old.Value), "role_id": secret.FromString(one.Public["role_id"])}
	if r := vault.Login(t.Context(), b.ProbeSpec(one), m1); r.Answer != rotation.Alive {
		t.Fatalf("the adopted one is %s (%s)", r.Answer, r.Reason)
	}
	if r := vault.Login(t.Context(), b.ProbeSpec(one), rotation.Material{"secret_id": secret.FromString(other.Value)}); r.Answer != rotation.Unfit {
		t.Errorf("somebody else's is taken for it: %s (%s)", r.Answer, r.Reason)
	}
	_, mine := f.login(m1)
	_, others := f.login(rotation.Material{"secret_id": secret.FromString(other.Value), "role_id": m1["role_id"]})

	one.State = rotation.Current
	two, m2 := f.armed(b, 2, one)
	f.must(b.Compare(t.Context(), two, one))
	_, next := f.login(m2)
	for _, v := range []rotation.Version{one, two} {
		if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Armed || len(st.Uses) != 1 {
			t.Errorf("version %d is %+v, %v, want it armed with one token", v.Number, st, err)
		}
	}
	declared := f.backend(func(s *vault.Settings) { s.AppRole.Metadata = map[string]string{"team": "billing"} })
	if err := declared.Compare(t.Context(), two, one); err == nil || !strings.Contains(err.Error(), "+ metadata team=orders, - metadata team=billing") {
		t.Errorf("Compare = %v, want what differs from the configuration", err)
	}
	three, _ := f.armed(declared, 3, one)
	f.must(declared.Compare(t.Context(), three, one))
	f.must(b.End(t.Context(), three, rotation.ToDiscard))

	f.must(b.End(t.Context(), one, rotation.ToRetire))
	if st, err := b.Observe(t.Context(), one); err != nil || st.Status != rotation.Absent || len(st.Uses) != 0 {
		t.Errorf("after its end the adopted one is %+v, %v", st, err)
	}
	if mine() || !others() || !next() {
		t.Errorf("after the end the tokens live: of it %v, somebody else's %v, of the next %v; want false, true, true", mine(), others(), next())
	}
	if r := vault.Login(t.Context(), b.ProbeSpec(one), m1); r.Answer != rotation.Dead {
		t.Errorf("the adopted one is %s (%s), want it dead", r.Answer, r.Reason)
	}
}

// TestChildrenEnd makes a token with a token of a version: it ends with that.
func TestChildrenEnd(t *testing.T) { onBoth(t, childrenEnd) }

func childrenEnd(t *testing.T, f *fixture) {
	f.server.Admin(t, f.name+"-child", `path "auth/token/create" { capabilities = ["update"] }`)
	f.role("token_policies", "default,"+f.name+"-child")
	b := f.backend()
	v, m := f.armed(b, 1)
	parent, _ := f.login(m)
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	f.must(f.server.CallAs(t.Context(), parent, http.MethodPost, "/v1/auth/token/create", map[string]any{}, &made))
	f.must(b.End(t.Context(), v, rotation.ToRetire))
	if err := f.server.CallAs(t.Context(), made.Auth.Token, http.MethodGet, "/v1/auth/token/lookup-self", nil, nil); err == nil {
		t.Error("a token that was made by one of a dead secret-id lives on")
	}
}

// TestYoungTokens looks at all tokens while services log in: none of theirs comes to harm.
// Vault ends a token that is looked up before its lease was made.
func TestYoungTokens(t *testing.T) { onBoth(t, youngTokens) }

func youngTokens(t *testing.T, f *fixture) {
	b := f.backend()
	v, m := f.armed(b, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var looks atomic.Int64
	var watch, logins sync.WaitGroup
	for range 2 {
		watch.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.Observe(t.Context(), v); err != nil {
					t.Error(err)
				}
				looks.Add(1)
			}
		})
	}
	var made, ended atomic.Int64
	for range 4 {
		logins.Go(func() {
			for looks.Load() < 6 && ctx.Err() == nil {
				_, alive := f.login(m)
				if made.Add(1); !alive() {
					ended.Add(1)
				}
			}
		})
	}
	logins.Wait()
	cancel()
	watch.Wait()
	if made.Load() < 20 || ended.Load() > 0 {
		t.Errorf("of %d tokens %d were ended by who looked at them", made.Load(), ended.Load())
	}
	f.must(b.End(t.Context(), v, rotation.ToRetire))
}

// TestArmAgain is what arming makes of what is there already.
func TestArmAgain(t *testing.T) { onBoth(t, armAgain) }

func armAgain(t *testing.T, f *fixture) {
	b := f.backend()
	v, m := f.armed(b, 1)
	f.must(b.Arm(t.Context(), v, m, time.Time{}))
	another, err := b.Draft(v)
	f.must(err)
	if err := b.Arm(t.Context(), v, another, time.Time{}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "is not what version 1 is to be") {
		t.Errorf("Arm with another value = %v, want a refusal", err)
	}
	two, err := b.Identify(t.Context(), f.version(2, rotation.Pending), nil)
	f.must(err)
	err = b.Arm(t.Context(), two, m, time.Time{})
	if err == nil || !strings.Contains(err.Error(), "already registered") || strings.Contains(err.Error(), string(m["secret_id"].Reveal())) {
		t.Errorf("Arm with the value of another version = %v, want Vault's refusal without the value", err)
	}
}

// TestRefusals is what is refused before anything is made.
func TestRefusals(t *testing.T) { onBoth(t, refusals) }

func refusals(t *testing.T, f *fixture) {
	reader := f.server.Admin(t, f.name+"-reader", strings.ReplaceAll(strings.ReplaceAll(policy(t, f.name), `["update"]`, `["deny"]`), `, "sudo"`, ""))
	of := func(do func(*vault.Backend) error, change ...func(*vault.Settings)) func() error {
		return func() error { return do(f.backend(change...)) }
	}
	preflight := func(b *vault.Backend) error { return b.Preflight(t.Context(), rotation.Credential{}) }
	adopt := func(b *vault.Backend) error {
		_, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
		return err
	}
	identify := func(b *vault.Backend) error {
		_, err := b.Identify(t.Context(), f.version(7, rotation.Pending), []rotation.Version{{Number: 6, Identity: "gone", State: rotation.Current}})
		return err
	}
	as := func(token string, do func() error) func() error {
		return func() error {
			was := f.admin
			f.admin = token
			defer func() { f.admin = was }()
			return do()
		}
	}
	with := func(do func() error, pairs ...string) func() error {
		return func() error {
			defer f.role("bind_secret_id", "true", "secret_id_num_uses", "0", "token_type", "service", "secret_id_ttl", "0")
			f.role(pairs...)
			return do()
		}
	}
	nowhere := func(s *vault.Settings) { s.AppRole.Role = f.name + "x" }
	unmounted := func(s *vault.Settings) { s.AppRole.Mount = "nowhere" }
	adopts := func(accessor string) func(*vault.Settings) {
		return func(s *vault.Settings) { s.AppRole.Adopt = accessor }
	}
	root := f.server.Token
	f.must(of(preflight)())
	none := of(adopt)()
	one := f.byHand(nil)
	f.must(of(adopt)())
	two := f.byHand(nil)
	counted := f.byHand(map[string]any{"num_uses": 3, "metadata": `{"a":"b"}`})
	seven, _ := f.armed(f.backend(), 7)
	made := f.byTitle(seven.Identity)
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"nothing to adopt", func() error { return none }, "has no secret-id to take over"},
		{"several to adopt", of(adopt), "has 4 secret-ids"},
		{"unknown to adopt", of(adopt, adopts("00000000-0000-8000-8000-000000000000")), "no secret-id with the accessor under adopt"},
		{"alike", of(adopt, adopts(one.Accessor)), "nobody could tell which of them services use"},
		{"counts its uses", of(adopt, adopts(counted.Accessor)), "used up after 3 more logins"},
		{"made by Keyturn", of(adopt, adopts(made)), "says that Keyturn made it"},
		{"somebody else rotates", of(identify), "somebody else rotates, or did"},
		{"no such role", as(root, of(preflight, nowhere)), "there is no role"},
		{"no such mount", as(root, of(identify, unmounted)), "there is no role"},
		{"lets everybody in", with(of(preflight), "bind_secret_id", "false", "secret_id_bound_cidrs", "127.0.0.0/8"), "lets in without a secret-id"},
		{"counts", with(of(preflight), "secret_id_num_uses", "5"), "used up after 5 logins"},
		{"batch tokens", with(of(preflight), "token_type", "batch"), "which nobody can revoke"},
		{"lives shorter", with(of(preflight), "secret_id_ttl", "720h"), "lives for 30d"},
		{"administrator reads", as(reader, of(preflight)), "sudo on auth/token/accessors, update on auth/token/lookup-accessor"},
		{"administrator unknown", as("hvs.nobody", of(preflight)), "permission denied"},
		{"unknown, when it looks", as("hvs.nobody", of(identify)), "permission denied"},
		{"nothing to copy", of(func(b *vault.Backend) error {
			f.must(b.End(t.Context(), seven, rotation.ToDiscard))
			return identify(b)
		}), "of which they are to be copied"},
	} {
		err := c.do()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
			continue
		}
		if rotation.ClassOf(err) != rotation.Refused || rotation.HintOf(err) == "" {
			t.Errorf("%s: class %d, hint %q: want a refusal with a hint", c.name, rotation.ClassOf(err), rotation.HintOf(err))
		}
		for _, value := range []string{one.Value, two.Value, counted.Value, reader, f.admin, root} {
			if strings.Contains(err.Error(), value) {
				t.Errorf("%s: the error holds a value", c.name)
			}
		}
	}
}

// byTitle is the accessor of the secret-id with a title.
func (f *fixture) byTitle(title string) string {
	f.t.Helper()
	var list struct{ Data struct{ Keys []string } }
	f.call(http.MethodGet, "/v1/auth/approle/role/"+f.name+"/secret-id?list=true", nil, &list)
	for _, accessor := range list.Data.Keys {
		var s struct {
			Data struct{ Metadata map[string]string }
		}
		f.call(http.MethodPost, "/v1/auth/approle/role/"+f.name+"/secret-id-accessor/lookup", map[string]string{"secret_id_accessor": accessor}, &s)
		if s.Data.Metadata["keyturn"] == title {
			return accessor
		}
	}
	f.t.Fatalf("no secret-id is %q", title)
	return ""
}

// TestNothingInVaultsRecords looks for values in what Vault itself writes.
func TestNothingInVaultsRecords(t *testing.T) { onBoth(t, nothingInVaultsRecords) }

func nothingInVaultsRecords(t *testing.T, f *fixture) {
	b := f.backend()
	v, m := f.armed(b, 1)
	vault.Login(t.Context(), b.ProbeSpec(v), m)
	f.must(b.End(t.Context(), v, rotation.ToRetire))
	vault.Login(t.Context(), b.ProbeSpec(v), m)
	for _, file := range []string{f.server.AuditFile(), f.server.LogFile(0)} {
		text, err := os.ReadFile(file)
		f.must(err)
		for _, value := range []string{string(m["secret_id"].Reveal()), f.admin} {
			if strings.Contains(string(text), value) {
				t.Errorf("%s holds a value", file)
			}
		}
	}
	if text, err := os.ReadFile(f.server.AuditFile()); err != nil || !json.Valid(text[:strings.IndexByte(string(text), '\n')]) || !strings.Contains(string(text), f.name+"/custom-secret-id") {
		t.Errorf("the audit file does not tell of the secret-id that was made: %v", err)
	}
}
