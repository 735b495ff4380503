package consul_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation"
)

func copied(s *consul.Settings) {
	s.Policies, s.Roles, s.ServiceIdentities, s.NodeIdentities = nil, nil, nil, nil
}

// TestCopiedRights rotates from an adopted token, whose links the next one gets.
func TestCopiedRights(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	old := f.token(map[string]any{"Description": "orders, by hand", "Policies": links(f.policy), "Roles": links(f.role),
		"ServiceIdentities": []map[string]any{{"ServiceName": f.name, "Datacenters": []string{"dc1"}}},
		"NodeIdentities":    []map[string]string{{"NodeName": f.name, "Datacenter": "dc1"}},
		"TemplatedPolicies": []map[string]any{{"TemplateName": "builtin/service", "TemplateVariables": map[string]string{"Name": f.name + "-web"}}}})
	b := f.backend(copied, func(s *consul.Settings) { s.Adopt = old.AccessorID })
	one, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
	f.must(err)
	if one.Identity != old.AccessorID || one.Public["accessor"] != old.AccessorID {
		t.Fatalf("adopted is %+v, want accessor %s", one, old.AccessorID)
	}
	one.State = rotation.Current
	two, err := b.Identify(t.Context(), f.version(2, rotation.Pending), []rotation.Version{one})
	f.must(err)
	m, err := b.Draft(two)
	f.must(err)
	f.must(b.Arm(t.Context(), two, m, time.Time{}))
	f.must(b.Compare(t.Context(), two, one))
	if made := f.dc.Tokens(t, "keyturn "+f.name+" "); len(made) != 1 || made[0].Description != "keyturn "+f.name+" v2" || made[0].AccessorID != two.Identity {
		t.Errorf("Consul has %+v, want the one token of version 2", made)
	}
	// What is linked otherwise afterwards is told apart.
	f.dc.Put(t, "/v1/acl/token/"+old.AccessorID, map[string]any{"AccessorID": old.AccessorID, "Description": "orders, by hand", "Policies": links(f.policy)})
	err = b.Compare(t.Context(), two, one)
	if err == nil || !strings.Contains(err.Error(), "+ role "+f.role) || !strings.Contains(err.Error(), "+ template builtin/service of "+f.name+"-web") {
		t.Errorf("Compare = %v, want what the old one lacks", err)
	}
	f.must(b.End(t.Context(), one, rotation.ToRetire))
	standing, err := b.Observe(t.Context(), one)
	if err != nil || standing.Status != rotation.Absent {
		t.Errorf("after its end the adopted token is %+v, %v", standing, err)
	}
}

// TestRefusals is what is refused before anything is made.
func TestRefusals(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	mine := f.token(map[string]any{"Description": "orders, by hand", "Policies": links(f.policy)})
	seven, err := f.backend().Identify(t.Context(), f.version(7, rotation.Pending), nil)
	f.must(err)
	later := f.token(map[string]any{"AccessorID": seven.Identity, "Description": "keyturn " + f.name + " v7", "Policies": links(f.policy)})
	all := f.token(map[string]any{"Description": "too much", "Policies": links("global-management")})
	readOnly := f.token(map[string]any{"Description": "reads", "Policies": f.dc.Policy(t, f.name+"-reader", `acl = "read"`)})
	adopts := func(accessor string, change ...func(*consul.Settings)) error {
		b := f.backend(append(change, func(s *consul.Settings) { s.Adopt = accessor })...)
		_, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
		return err
	}
	as := func(secret string, do func() error) error {
		was := f.admin
		f.admin = secret
		defer func() { f.admin = was }()
		return do()
	}
	preflight := func() error { return f.backend().Preflight(t.Context(), rotation.Credential{}) }
	identify := func(change ...func(*consul.Settings)) error {
		_, err := f.backend(change...).Identify(t.Context(), f.version(7, rotation.Pending), nil)
		return err
	}
	f.must(preflight())
	nowhere := func(s *consul.Settings) { s.Policies = append(s.Policies, "nowhere") }
	noRole := func(s *consul.Settings) { s.Roles = []string{"nobody"} }
	looks := func(change ...func(*consul.Settings)) error {
		return f.backend(change...).Preflight(t.Context(), rotation.Credential{})
	}
	// Where the policy goes after the preflight, nothing is made, and that is known.
	eight, err := f.backend(nowhere).Identify(t.Context(), f.version(8, rotation.Pending), nil)
	f.must(err)
	m, err := f.backend().Draft(eight)
	f.must(err)
	if err := f.backend(nowhere).Arm(t.Context(), eight, m, time.Time{}); rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), "No such ACL policy") {
		t.Errorf("Arm with a policy that is nowhere = %v of class %d, want it to fail", err, rotation.ClassOf(err))
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing to adopt":       {adopts(""), "nothing says which token services use today"},
		"unknown to adopt":       {adopts("00000000-0000-8000-8000-000000000000"), "no token has the accessor under adopt"},
		"a later version":        {adopts(later.AccessorID, copied), "says that it is a later version"},
		"may do everything":      {adopts(all.AccessorID, copied), "may do everything"},
		"linked otherwise":       {adopts(mine.AccessorID), "is linked otherwise than the configuration says: + node"},
		"somebody else rotates":  {identify(), "somebody else rotates, or did"},
		"nothing to copy":        {identify(copied, func(s *consul.Settings) { s.Description = "other" }), "no token is in service whose rights could be copied"},
		"no such policy":         {looks(nowhere), `Consul has no policy "nowhere"`},
		"no such role":           {looks(noRole), `Consul has no role "nobody"`},
		"administrator reads":    {as(readOnly.SecretID, preflight), "may read tokens, and not make any"},
		"administrator may not":  {as(mine.SecretID, preflight), "Permission denied"},
		"administrator unknown":  {as("00000000-0000-4000-8000-000000000000", preflight), "Consul does not know the administrator's token"},
		"unknown, when it looks": {as("00000000-0000-4000-8000-000000000000", func() error { return identify() }), "Consul does not know the administrator's token"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, c.err, c.want)
			continue
		}
		if rotation.ClassOf(c.err) != rotation.Refused || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: class %d, hint %q: want a refusal with a hint", name, rotation.ClassOf(c.err), rotation.HintOf(c.err))
		}
		for _, secret := range []string{mine.SecretID, later.SecretID, all.SecretID, readOnly.SecretID, f.admin} {
			if strings.Contains(c.err.Error(), secret) {
				t.Errorf("%s: the error holds a value", name)
			}
		}
	}
}
