package consul

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/rotation"
)

// rights is what a token may do, each link in words, sorted: two tokens may do the same if
// these are equal.
type rights []string

// rightsOf returns what a token may do.
func rightsOf(t *api.ACLToken) rights {
	var out rights
	for _, p := range t.Policies {
		out = append(out, "policy "+p.Name)
	}
	for _, r := range t.Roles {
		out = append(out, "role "+r.Name)
	}
	for _, s := range t.ServiceIdentities {
		out = append(out, strings.TrimSuffix("service "+s.ServiceName+"@"+strings.Join(sorted(s.Datacenters), ","), "@"))
	}
	for _, n := range t.NodeIdentities {
		out = append(out, "node "+n.NodeName+"@"+n.Datacenter)
	}
	for _, p := range t.TemplatedPolicies {
		text := "template " + p.TemplateName
		if p.TemplateVariables != nil {
			text += " of " + p.TemplateVariables.Name
		}
		out = append(out, strings.TrimSuffix(text+"@"+strings.Join(sorted(p.Datacenters), ","), "@"))
	}
	if t.Local {
		out = append(out, "in this datacenter alone")
	}
	slices.Sort(out)
	return out
}

func sorted(texts []string) []string { return slices.Sorted(slices.Values(texts)) }

// differ says what one may and the other may not, or "".
func (r rights) differ(other rights) string { return rotation.Difference(r, other) }

func (r rights) String() string {
	if len(r) == 0 {
		return "nothing of its own"
	}
	return strings.Join(r, ", ")
}

// declaredRights returns a token that is linked as the settings say.
func (s Settings) declaredRights() *api.ACLToken {
	t := &api.ACLToken{}
	for _, name := range s.Policies {
		t.Policies = append(t.Policies, &api.ACLLink{Name: name})
	}
	for _, name := range s.Roles {
		t.Roles = append(t.Roles, &api.ACLLink{Name: name})
	}
	for _, text := range s.ServiceIdentities {
		name, dc, one := strings.Cut(text, "@")
		id := &api.ACLServiceIdentity{ServiceName: name}
		if one {
			id.Datacenters = []string{dc}
		}
		t.ServiceIdentities = append(t.ServiceIdentities, id)
	}
	for _, text := range s.NodeIdentities {
		name, dc, _ := strings.Cut(text, "@")
		t.NodeIdentities = append(t.NodeIdentities, &api.ACLNodeIdentity{NodeName: name, Datacenter: dc})
	}
	return t
}

// copiedRights returns a token that is linked as another one.
func copiedRights(t *api.ACLToken) *api.ACLToken {
	return &api.ACLToken{Policies: t.Policies, Roles: t.Roles, ServiceIdentities: t.ServiceIdentities, NodeIdentities: t.NodeIdentities,
		TemplatedPolicies: t.TemplatedPolicies, Local: t.Local}
}

// describe says of a token what people may want to know.
func describe(t *api.ACLToken) string {
	return fmt.Sprintf("token %s %q, with %s", t.AccessorID, t.Description, rightsOf(t))
}
