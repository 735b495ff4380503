package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

func TestReleases(t *testing.T) {
	for _, tt := range []struct {
		version int
		skew    time.Duration
		want    string
	}{
		{150018, time.Second, ""}, {120022, 0, ""}, {170002, -4 * time.Minute, ""}, {180000, 0, ""},
		{110022, 0, "PostgreSQL 11.22 is too old"},
		{120021, 0, "PostgreSQL 12.21 ignores a role's SET role"},
		{130017, 0, "13.17 ignores"}, {140014, 0, "14.14 ignores"}, {150009, 0, "15.9 ignores"},
		{160005, 0, "16.5 ignores"}, {170001, 0, "17.1 ignores"},
		{150018, 6 * time.Minute, "its clock is 6m0s away from ours"}, {150018, -time.Hour, "its clock is -1h0m0s away"},
	} {
		err := postgres.CheckServer(tt.version, tt.skew)
		if tt.want == "" {
			if err != nil {
				t.Errorf("release %d: %v, want it taken", tt.version, err)
			}
			continue
		}
		if err == nil || rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), tt.want) || rotation.HintOf(err) == "" {
			t.Errorf("release %d: %v, want refused with a hint: …%s…", tt.version, err, tt.want)
		}
	}
}

// TestPreflightFindsAllAtOnce spoils several things and looks for each.
func TestPreflightFindsAllAtOnce(t *testing.T) {
	f := adopted(t)
	cred := rotation.Credential{Name: "orders-db"}
	if err := f.backend().Preflight(context.Background(), cred); err != nil {
		t.Fatalf("Preflight after the set-up: %v", err)
	}
	f.exec(f.database, "alter role "+f.role+"_a createdb", "revoke "+f.role+" from "+f.role+"_b", "drop role "+f.role+"_c",
		"alter role "+f.role+" bypassrls")
	slow := f.backend(func(o *postgres.Options) { o.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) } })
	err := slow.Preflight(context.Background(), cred)
	if rotation.ClassOf(err) != rotation.Refused {
		t.Fatalf("Preflight = %v, want refused", err)
	}
	for _, want := range []string{f.role + "_a is CREATEDB", f.role + "_b is no member of", `"` + f.role + `_c" does not exist`, `role "` + f.role + `" is BYPASSRLS`, "its clock is 10m0s away"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Preflight does not say %q:\n%v", want, err)
		}
	}
	f.exec(f.database, "update keyturn.managed set role = 'other' where login = '"+f.role+"_a'")
	if err := f.backend().Preflight(context.Background(), cred); err == nil || !strings.Contains(err.Error(), `belongs to role "other"`) {
		t.Errorf("Preflight of another role's login = %v", err)
	}
}

// TestPrimaryCannotAnswer: a server that is frozen or down leaves nothing
// known, and what was begun is finished afterwards (hard problems 42 and 47).
func TestPrimaryCannotAnswer(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.setup()
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	unknown := func(how string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		defer cancel()
		for call, do := range map[string]func() error{
			"Arm":     func() error { return b.Arm(ctx, v, m, time.Now().Add(time.Hour)) },
			"Expire":  func() error { return b.Expire(ctx, v, time.Time{}) },
			"End":     func() error { return b.End(ctx, v, rotation.ToRetire) },
			"Observe": func() error { return second(b.Observe(ctx, v)) },
			"Lock":    func() error { _, err := b.Lock(ctx, "orders-db"); return err },
			"Compare": func() error { return b.Compare(ctx, v, v) },
			"Adopt":   func() error { return second(b.Adopt(ctx, version(1))) },
		} {
			if err := do(); rotation.ClassOf(err) != rotation.Unknown {
				t.Errorf("%s with a server that is %s = %v, want unknown", call, how, err)
			}
		}
		if r := postgres.Login(ctx, b.ProbeSpec(v), m); r.Answer != rotation.Inconclusive {
			t.Errorf("Login with a server that is %s = %+v, want unknown", how, r)
		}
	}
	f.must(f.server.Pause())
	unknown("frozen")
	f.must(f.server.Resume())
	f.must(f.server.Crash(ctx))
	unknown("down")
	f.must(f.server.Start(ctx))
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("after the restart the version is %+v, want alive", r)
	}
	if err := b.End(ctx, v, rotation.ToDiscard); err != nil {
		t.Error(err)
	}
}

// TestPasswordEncryption: with md5 there and in pg_hba.conf, a login without a
// password is asked for MD5, and so is one that has expired. No probe can prove
// its death.
func TestPasswordEncryption(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.setup()
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	f.must(f.server.Set(map[string]string{"password_encryption": "md5"}))
	f.hba("hostssl all all 127.0.0.1/32 md5\n")
	f.exec(f.database, "alter role "+v.Identity+" password null")
	if r := f.probe(b, v, m); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "SCRAM") {
		t.Errorf("Login = %q (%s), want unknown", r.Answer, r.Reason)
	}
	for call, err := range map[string]error{
		"Preflight": b.Preflight(ctx, rotation.Credential{Name: "orders-db"}), "Adopt": second(b.Adopt(ctx, version(1))),
	} {
		if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "password_encryption is md5") || !strings.Contains(rotation.HintOf(err), "scram-sha-256") {
			t.Errorf("%s = %v (hint %q), want refused with a hint", call, err, rotation.HintOf(err))
		}
	}
	f.must(f.server.Set(map[string]string{"password_encryption": "scram-sha-256"}))
	if r := f.probe(b, v, m); r.Answer != rotation.Dead {
		t.Errorf("with scram-sha-256 Login = %q (%s), want dead", r.Answer, r.Reason)
	}
	if err := b.Preflight(ctx, rotation.Credential{Name: "orders-db"}); err != nil {
		t.Errorf("with scram-sha-256 Preflight: %v", err)
	}
}
