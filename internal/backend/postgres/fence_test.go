package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestCommentIsACopy: any tool may overwrite the comment of a role. What holds
// a login stands in the table, so that it is found and ended all the same.
func TestCommentIsACopy(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	if got := f.text("select shobj_description(oid, 'pg_authid') from pg_roles where rolname = $1", v.Identity); got != `keyturn:{"credential":"orders-db","version":2}` {
		t.Errorf("the comment is %q, want a copy of what the table says", got)
	}
	for _, comment := range []string{"'managed by somebody'", "null", `'keyturn:{"credential":"orders-db","version":9,"ended":true}'`} {
		f.exec(f.database, "comment on role "+v.Identity+" is "+comment)
		if s := f.standing(b, v); s.Status != rotation.Expiring {
			t.Errorf("Observe with the comment %s = %+v, want expiring", comment, s)
		}
		if err := b.Expire(ctx, v, time.Now().Add(time.Hour)); err != nil {
			t.Errorf("Expire with the comment %s: %v", comment, err)
		}
	}
	if err := b.End(ctx, v, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	if s := f.standing(b, v); s.Status != rotation.Ended {
		t.Errorf("Observe after End = %+v, want ended", s)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Dead {
		t.Errorf("after End the version is %+v, want dead", r)
	}
}

// TestSetupMovesTheFenceIntoTheTable runs the script on what version 1 of the
// functions left: the comment alone says who holds a login.
func TestSetupMovesTheFenceIntoTheTable(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, m := f.prepared(b, 2)
	const version1 = "alter table keyturn.managed drop column credential, drop column version, drop column ended"
	f.exec(f.database, version1)
	f.setup()
	if s := f.standing(b, v); s.Status != rotation.Expiring {
		t.Errorf("Observe = %+v, want expiring: the comment says so", s)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("the version is %+v, want alive", r)
	}
	if err := b.End(context.Background(), v, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	f.exec(f.database, version1)
	f.setup()
	if s := f.standing(b, v); s.Status != rotation.Ended {
		t.Errorf("Observe = %+v, want ended: the comment says so", s)
	}
	for _, comment := range []string{"null", "'keyturn:{broken'", "'keyturn:{}'", `'keyturn:{"credential":"orders-db","version":"two"}'`, `'nothing:{"credential":"orders-db","version":2}'`} {
		f.exec(f.database, version1, "alter role "+v.Identity+" login", "comment on role "+v.Identity+" is "+comment)
		err := f.trySetup()
		if err == nil || !strings.Contains(err.Error(), "nobody knows for which version") {
			t.Errorf("the script with an armed login and the comment %s = %v, want it refused", comment, err)
		}
		f.exec(f.database, "alter role "+v.Identity+" nologin")
		f.setup()
	}
}

// TestNobodyHoldsAnArmedLogin: a login that may log in, and of which nobody
// knows why, is never called ended.
func TestNobodyHoldsAnArmedLogin(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, _ := f.prepared(b, 2)
	f.exec(f.database, "update keyturn.managed set credential = null, version = null where login = '"+v.Identity+"'")
	err := b.End(context.Background(), v, rotation.ToRetire)
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "nobody knows for which version") || rotation.HintOf(err) == "" {
		t.Errorf("End = %v, want refused with a hint", err)
	}
}

// TestFunctionsOfAnotherVersion: what other functions say of a login would be misread.
func TestFunctionsOfAnotherVersion(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, _ := f.prepared(b, 2)
	f.exec(f.database, `create or replace function keyturn.state(_login text) returns jsonb language sql as
		'select jsonb_build_object(''login'', _login, ''exists'', true, ''canlogin'', true, ''until'', ''infinity'')'`)
	t.Cleanup(f.setup)
	_, err := b.Observe(context.Background(), v)
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "have version 1, this program needs 3") || rotation.HintOf(err) == "" {
		t.Errorf("Observe = %v, want refused with a hint", err)
	}
}

// TestEndOfALoginThatIsGone: somebody dropped it. That is as dead as can be.
func TestEndOfALoginThatIsGone(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	f.exec(f.database, "drop role "+v.Identity)
	for range 2 {
		if err := b.End(ctx, v, rotation.ToRetire); err != nil {
			t.Fatalf("End: %v, want success", err)
		}
	}
	if s := f.standing(b, v); s.Status != rotation.Absent {
		t.Errorf("Observe = %+v, want absent", s)
	}
	if err := b.Expire(ctx, v, time.Time{}); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("Expire = %v, want refused", err)
	}
	f.setup()
	if err := b.Arm(ctx, v, m, time.Now().Add(time.Hour)); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "number is burnt") {
		t.Errorf("Arm of a login that came back = %v, want refused: the number is burnt", err)
	}
}
