package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestNobodysOperatorsAreRun: adoption enters the databases of a role that may
// make operators there, which fit better than PostgreSQL's own. Whatever they
// are made of would run with the administrator's rights.
func TestNobodysOperatorsAreRun(t *testing.T) {
	f := adopted(t)
	f.exec(f.database, fmt.Sprintf(`
		grant create on schema public to %[1]s;
		alter role %[2]s set search_path = public, pg_catalog;
		create policy mine on %[1]s.items using (name = session_user);
		set role %[1]s;
		create table public.trap (who text); grant insert on public.trap to public;
		create function public.evil(text, name) returns text language sql as 'insert into public.trap values (session_user); select $1 || $2::text';
		create function public.evil(name, text) returns boolean language sql as 'insert into public.trap values (session_user); select $1::text = $2';
		create function public.evil(name, name) returns boolean language sql as 'insert into public.trap values (session_user); select $1::text = $2::text';
		create function public.evil(oid, oid) returns boolean language sql as 'insert into public.trap values (session_user); select $1::int8 = $2::int8';
		create function public.evil(text, text) returns boolean language sql as 'insert into public.trap values (session_user); select true';
		create operator public.|| (leftarg = text, rightarg = name, function = public.evil);
		create operator public.= (leftarg = name, rightarg = text, function = public.evil);
		create operator public.= (leftarg = name, rightarg = name, function = public.evil);
		create operator public.= (leftarg = oid, rightarg = oid, function = public.evil);
		create operator public.~* (leftarg = text, rightarg = text, function = public.evil)`, f.role, f.admin()))
	f.settings.AllowChanged = []string{"session-user", "own-sessions"}
	b := f.backend()
	if _, err := b.Adopt(context.Background(), version(1)); err != nil {
		t.Errorf("Adopt: %v", err)
	}
	f.prepared(b, 2)
	if n := f.text("select count(*)::text from public.trap"); n != "0" {
		t.Errorf("the role's own operators ran %s times as the administrator", n)
	}
}

// TestDefaultsOfTheAdministratorDoNotMatter: a role, a database or a server may
// have defaults that would make its sessions useless or forgetful.
func TestDefaultsOfTheAdministratorDoNotMatter(t *testing.T) {
	f := adopted(t)
	for _, set := range []string{"default_transaction_read_only = on", "default_transaction_isolation = serializable",
		"synchronous_commit = off", "standard_conforming_strings = off", "search_path = nowhere", "idle_session_timeout = '200ms'"} {
		f.exec(f.database, "alter role "+f.admin()+" set "+set)
	}
	f.settings.AllowChanged = nil
	f.exec(f.database, fmt.Sprintf("create policy mine on %[1]s.items using (name = session_user)", f.role))
	b, ctx := f.backend(), context.Background()
	if _, err := b.Adopt(ctx, version(1)); err == nil || !strings.Contains(err.Error(), "session-user: "+f.database+".policy mine") {
		t.Errorf("Adopt = %v, want the policy named", err)
	}
	unlock, err := b.Lock(ctx, "orders-db")
	if err != nil {
		t.Fatal(err)
	}
	v, m := f.prepared(b, 2)
	time.Sleep(500 * time.Millisecond)
	if _, err := f.backend().Lock(ctx, "orders-db"); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("the second Lock = %v, want refused: the first is held, however idle it is", err)
	}
	if err := unlock(ctx); err != nil {
		t.Error(err)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("the version is %+v, want alive", r)
	}
	if err := b.End(ctx, v, rotation.ToRetire); err != nil {
		t.Error(err)
	}
}
