package config

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// Full returns the configuration with every default written out, so that
// [Parse] makes the same of it. Where a secret stands is all that it says of it.
func (c *Config) Full() ([]byte, error) {
	f := file{Version: 1, FingerprintKey: c.FingerprintKey, GitHub: c.GitHub, Swarm: c.Swarm, Directory: c.Directory, ActionsSecrets: c.ActionsSecrets, Telemetry: c.Telemetry}
	switch {
	case c.JournalGitHub:
		f.Journal = "github"
	case c.Journal != "":
		f.Journal = "file:" + c.Journal
	}
	f.Credentials = yaml.Node{Kind: yaml.MappingNode}
	for _, cred := range c.Credentials {
		node, err := c.full(cred)
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", cred.Name, err)
		}
		put(&f.Credentials, cred.Name, node)
	}
	for _, r := range c.Reminders {
		node, err := encode(reflect.ValueOf(r.full()))
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", r.Name, err)
		}
		f.Reminders.Kind = yaml.MappingNode
		put(&f.Reminders, r.Name, node)
	}
	for _, ch := range c.Notify {
		node, err := encode(reflect.ValueOf(ch.full()))
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", ch.Name, err)
		}
		f.Notify.Kind = yaml.MappingNode
		put(&f.Notify, ch.Name, node)
	}
	node, err := encode(reflect.ValueOf(f))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(node); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// full returns a credential as it would be written with all its defaults.
func (c *Config) full(cred Credential) (*yaml.Node, error) {
	expiry := "lenient"
	if cred.Strict {
		expiry = "strict"
	}
	e := entry{Through: cred.Through, Stack: cred.Stack, Render: cred.Render, Secrets: cred.Secrets, Every: &cred.Every, Overlap: &cred.Overlap,
		Grace: &cred.Grace, Bound: &cred.Bound, MinAge: &cred.MinAge, Expiry: expiry, Mounts: cred.Mounts, Rollout: cred.Rollout,
		AcceptGap: cred.AcceptGap, Ignore: cred.Ignore, Restart: cred.Restart, Approve: cred.Approve, Allow: cred.Allow, Jitter: &cred.Jitter, After: cred.After}
	for _, w := range cred.Windows {
		e.Windows = append(e.Windows, w.Text)
	}
	if c.Directory != nil { // what is of a Swarm may not stand there
		e.Stack, e.Secrets, e.Ignore = nil, nil, nil
		e.Rollout = Rollout{HealthTimeout: cred.Rollout.HealthTimeout}
	}
	if c.ActionsSecrets != nil {
		e.Stack, e.Ignore, e.Rollout = nil, nil, Rollout{HealthTimeout: cred.Rollout.HealthTimeout}
	}
	if cred.Elsewhere() != "" && cred.oneAtATime() {
		e.Overlap, e.Grace, e.Bound, e.Expiry = nil, nil, nil, ""
	}
	if cred.Elsewhere() != "" {
		e.Through, e.Stack, e.Render, e.Secrets, e.Ignore, e.Restart, e.Mounts, e.Rollout = "", nil, nil, nil, nil, nil, "", Rollout{}
	}
	for _, s := range cred.Services {
		node, err := encode(reflect.ValueOf(s))
		if err != nil {
			return nil, err
		}
		e.Services.Kind = yaml.MappingNode
		put(&e.Services, s.Name, node)
	}
	settings, err := encode(reflect.ValueOf(cred.Settings))
	if err != nil {
		return nil, err
	}
	rest, err := encode(reflect.ValueOf(e))
	if err != nil {
		return nil, err
	}
	out := &yaml.Node{Kind: yaml.MappingNode}
	put(out, cred.Backend, settings)
	out.Content = append(out.Content, rest.Content...)
	return out, nil
}

func put(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, text(key), value)
}

// text returns a text that is read as text, in quotes if it must be.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// encode is the way back of [decoder.decode].
func encode(v reflect.Value) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return text(FormatDuration(x)), nil
	case fs.FileMode:
		n := text(fmt.Sprintf("%04o", uint32(x)))
		n.Style = yaml.DoubleQuotedStyle
		return n, nil
	case yaml.Node:
		return &x, nil
	case secret.Source:
		n := &yaml.Node{Kind: yaml.MappingNode}
		if x.Env != "" {
			put(n, "from-env", text(x.Env))
		} else {
			put(n, "from-file", text(x.File))
		}
		return n, nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Struct:
		return encodeStruct(v)
	case reflect.Map:
		m, ok := v.Interface().(map[string]string)
		if !ok {
			return nil, fmt.Errorf("nothing is known of the type %s", v.Type())
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			put(n, key, text(m[key]))
		}
		return n, nil
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item, err := encode(v.Index(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	case reflect.String:
		return text(v.String()), nil
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}, nil
	}
	switch {
	case v.CanInt():
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}, nil
	case v.CanUint():
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatUint(v.Uint(), 10)}, nil
	}
	return nil, fmt.Errorf("nothing is known of the type %s", v.Type())
}

// encodeStruct writes the fields that have a key and a value.
func encodeStruct(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i, key := range keysOf(v.Type()) {
		if key == "" || v.Field(i).IsZero() && v.Field(i).Kind() != reflect.Bool {
			continue
		}
		value, err := encode(v.Field(i))
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", key, err)
		}
		if len(value.Content) == 0 && value.Kind == yaml.SequenceNode {
			continue
		}
		put(n, key, value)
	}
	return n, nil
}
