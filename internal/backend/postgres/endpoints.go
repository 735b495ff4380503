package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// ways returns what the probe URLs say, or the administrator's URL where there
// are none: how services reach the database.
func (b *Backend) ways() []address {
	if len(b.settings.Probe) == 0 {
		return []address{b.admin}
	}
	var ways []address
	for _, p := range b.settings.Probe {
		a, _ := parseURL(p) // checked by New
		ways = append(ways, a)
	}
	return ways
}

// place is what a version says of where it is used: the first host of the first way.
func (b *Backend) place() (host, port, database string) {
	a := b.ways()[0]
	host, port, _ = net.SplitHostPort(a.hosts[0])
	return host, port, a.database
}

// ProbeSpec returns one endpoint for every host of every probe URL, or for
// every host of the administrator if there is no such URL. A host of the
// administrator that no probe URL names is not tried: services may not reach
// it, and a version that cannot be tried somewhere is neither alive nor dead.
// [Backend.Warnings] says so.
func (b *Backend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	spec := rotation.ProbeSpec{Backend: "postgres", Identity: v.Identity, CA: b.options.CA}
	for _, a := range b.ways() {
		for _, hp := range a.hosts {
			spec.Endpoints = append(spec.Endpoints, endpointURL(hp, a.database))
		}
	}
	spec.Settings, _ = json.Marshal(probeSettings{Role: b.settings.Role, InsecureTLS: b.settings.InsecureTLS, Pins: b.settings.Pins, Direct: b.admin.hosts})
	return spec // strings always encode
}

// Warnings says what the endpoints of the probes leave out. It does no I/O.
func (b *Backend) Warnings(context.Context, string) ([]string, error) {
	if len(b.settings.Probe) == 0 {
		return []string{fmt.Sprintf("no probe is set: versions are tried at the administrator's hosts (%s), which may not be the way that services take; "+
			"name that way under probe, through the pooler if there is one", strings.Join(b.admin.hosts, ", "))}, nil
	}
	left := slices.Clone(b.admin.hosts)
	for _, a := range b.ways() {
		left = slices.DeleteFunc(left, func(hp string) bool { return slices.Contains(a.hosts, hp) })
	}
	if len(left) == 0 {
		return nil, nil
	}
	return []string{fmt.Sprintf("probe leaves out %s: the old password is not tried there, and that it is dead there is the administrator's view alone; "+
		"name these hosts under probe if services reach them", strings.Join(left, ", "))}, nil
}
