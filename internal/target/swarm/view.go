package swarm

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// secretDir is where secrets are mounted whose target is no absolute path.
const secretDir = "/run/secrets"

// A view is the part of a service's spec that may hold something of ours.
type view struct {
	Env     []string
	Secrets []*swarm.SecretReference
	Labels  map[string]string
	Update  *swarm.UpdateConfig
}

func viewOf(s swarm.ServiceSpec) view {
	v := view{Labels: s.Labels, Update: s.UpdateConfig}
	if c := s.TaskTemplate.ContainerSpec; c != nil {
		v.Env, v.Secrets = c.Env, c.Secrets
	}
	return v
}

func taskView(s swarm.TaskSpec) view {
	if s.ContainerSpec == nil {
		return view{}
	}
	return view{Env: s.ContainerSpec.Env, Secrets: s.ContainerSpec.Secrets}
}

// clone returns a copy that shares nothing with v.
func (v view) clone() view {
	v.Env, v.Labels = slices.Clone(v.Env), maps.Clone(v.Labels)
	refs := v.Secrets
	v.Secrets = nil
	for _, ref := range refs {
		v.Secrets = append(v.Secrets, cloneRef(ref))
	}
	if v.Update != nil {
		update := *v.Update
		v.Update = &update
	}
	return v
}

func cloneRef(ref *swarm.SecretReference) *swarm.SecretReference {
	c := *ref
	if ref.File != nil {
		file := *ref.File
		c.File = &file
	}
	return &c
}

// reads reports whether two views make tasks read the same.
func (v view) reads(other view) bool {
	return slices.Equal(v.Env, other.Env) && reflect.DeepEqual(v.Secrets, other.Secrets)
}

// env returns the value of a variable. Of several, the last one counts.
func (v view) env(name string) (string, bool) {
	for _, entry := range slices.Backward(v.Env) {
		if key, value, ok := strings.Cut(entry, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// set gives a variable a value, in the place where it stands.
func (v *view) set(name, value string) {
	if old, ok := v.env(name); ok && old == value {
		return
	}
	is := func(entry string) bool { return entry == name || strings.HasPrefix(entry, name+"=") }
	i := slices.IndexFunc(v.Env, is)
	if i < 0 {
		v.Env = append(v.Env, name+"="+value)
		return
	}
	v.Env[i] = name + "=" + value
	v.Env = append(v.Env[:i+1], slices.DeleteFunc(v.Env[i+1:], is)...)
}

// unset takes a variable away.
func (v *view) unset(name string) {
	v.Env = slices.DeleteFunc(v.Env, func(entry string) bool { return entry == name || strings.HasPrefix(entry, name+"=") })
}

// label sets a label; "" takes it away.
func (v *view) label(name, value string) {
	if value == "" {
		delete(v.Labels, name)
		return
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	v.Labels[name] = value
}

// at returns the reference that is mounted at an absolute path, or nil.
func (v view) at(target string) *swarm.SecretReference {
	for _, ref := range v.Secrets {
		if targetOf(ref) == target {
			return ref
		}
	}
	return nil
}

// targetOf returns the absolute path at which a reference is mounted.
func targetOf(ref *swarm.SecretReference) string {
	if ref.File == nil {
		return path.Join(secretDir, ref.SecretName)
	}
	if path.IsAbs(ref.File.Name) {
		return path.Clean(ref.File.Name)
	}
	return path.Join(secretDir, ref.File.Name)
}

// fileName is the way back: the target name for an absolute path.
func fileName(target string) string {
	if path.Dir(target) == secretDir {
		return path.Base(target)
	}
	return target
}

// patch returns the spec with the fields of the view in it. Everything else
// stays byte for byte what it was, also what this program has never heard of.
func patch(spec json.RawMessage, v view) (json.RawMessage, error) {
	return edit(spec, func(top map[string]json.RawMessage) error {
		if err := put(top, "Labels", v.Labels, len(v.Labels) == 0 && top["Labels"] == nil); err != nil {
			return err
		}
		if err := put(top, "UpdateConfig", v.Update, v.Update == nil); err != nil {
			return err
		}
		var err error
		top["TaskTemplate"], err = edit(top["TaskTemplate"], func(task map[string]json.RawMessage) error {
			task["ContainerSpec"], err = edit(task["ContainerSpec"], func(c map[string]json.RawMessage) error {
				if err := put(c, "Env", v.Env, len(v.Env) == 0); err != nil {
					return err
				}
				return put(c, "Secrets", v.Secrets, len(v.Secrets) == 0)
			})
			return err
		})
		return err
	})
}

// edit changes the members of a JSON object.
func edit(object json.RawMessage, change func(map[string]json.RawMessage) error) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, fmt.Errorf("editing a service's spec: %w", err)
	}
	if err := change(members); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// put sets a member, or takes it away.
func put(members map[string]json.RawMessage, name string, value any, none bool) error {
	if none {
		delete(members, name)
		return nil
	}
	data, err := json.Marshal(value)
	members[name] = data
	return err
}
