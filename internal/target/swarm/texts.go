package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// A Text is something that the Swarm keeps in the clear, and where.
type Text struct{ Where, Text string }

// largest is how much of a config is read, in bytes.
const largest = 256 << 10

// Texts are all texts of services and configs that whoever may talk to the engine can
// read: variables, arguments, labels, what configs hold. Our own are left out.
func (t *Target) Texts(ctx context.Context) ([]Text, error) {
	services, err := t.engine.services(ctx)
	if err != nil {
		return nil, err
	}
	var out []Text
	for _, s := range services {
		if !isProbe(s.Spec) {
			out = append(out, textsOf(s.Spec)...)
		}
	}
	configs, err := t.engine.ConfigList(ctx, swarm.ConfigListOptions{})
	if err != nil {
		return nil, fault(err)
	}
	for _, c := range configs {
		if strings.HasPrefix(c.Spec.Name, "keyturn.") {
			continue
		}
		whole, _, err := t.engine.ConfigInspectWithRaw(ctx, c.ID)
		if err != nil {
			continue // it is gone
		}
		data := whole.Spec.Data
		out = append(out, Text{fmt.Sprintf("config %q", c.Spec.Name), string(data[:min(len(data), largest)])})
	}
	return out, nil
}

// Labelled are the names of services that have one of the labels, each KEY or KEY=VALUE.
func (t *Target) Labelled(ctx context.Context, labels []string) ([]string, error) {
	services, err := t.engine.services(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range services {
		if slices.ContainsFunc(labels, func(label string) bool {
			key, want, valued := strings.Cut(label, "=")
			is, there := s.Spec.Labels[key]
			return there && (!valued || is == want)
		}) {
			out = append(out, s.Spec.Name)
		}
	}
	return out, nil
}

func textsOf(spec swarm.ServiceSpec) []Text {
	var out []Text
	add := func(where, text string) {
		out = append(out, Text{fmt.Sprintf("service %q: %s", spec.Name, where), text})
	}
	for name, value := range spec.Labels {
		add("label "+name, value)
	}
	c := spec.TaskTemplate.ContainerSpec
	if c == nil {
		return out
	}
	for _, entry := range c.Env {
		name, value, _ := strings.Cut(entry, "=")
		add("variable "+name, value)
	}
	for _, arg := range append(append([]string{}, c.Command...), c.Args...) {
		add("an argument", arg)
	}
	for name, value := range c.Labels {
		add("label of the container "+name, value)
	}
	return out
}
