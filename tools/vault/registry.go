package main

import (
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// A registry tells the core what is built in. It has no state.
type registry struct{}

func ofType(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeCredential:
		return auths
	case consts.PluginTypeSecrets:
		return engines
	}
	return nil
}

// Contains says whether a plugin is built in.
func (registry) Contains(name string, t consts.PluginType) bool { return ofType(t)[name] != nil }

// Get returns what makes a plugin.
func (registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	factory, ok := ofType(t)[name]
	return func() (any, error) { return factory, nil }, ok
}

// Keys returns the names of what is built in.
func (registry) Keys(t consts.PluginType) []string { return slices.Sorted(maps.Keys(ofType(t))) }

// DeprecationStatus says that all that is there is supported.
func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	if r.Contains(name, t) {
		return consts.Supported, true
	}
	return consts.Unknown, false
}

// IsBuiltinEntPlugin says that nothing is of the enterprise's.
func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
