package consul

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// GossipKey says how the key is tried that agents encrypt their gossip with.
type GossipKey struct {
	// Probe holds HOST:PORT of Serf, of agents at which a key is tried. Default: every
	// server, at port 8301.
	Probe []string `yaml:"probe"`
}

// The fields of a gossip key.
const (
	fieldKey         = "key"         // base64, as encrypt takes it
	fieldFingerprint = "fingerprint" // SHA256:…
)

// keyBytes is the length of a key that is made here, of AES-256.
const keyBytes = 32

// serfPort is Consul's own.
const serfPort = "8301"

// A Gossip rotates the key of one datacenter's gossip: Consul keeps a ring of keys on
// every member, of which one is the primary, which members encrypt with; each decrypts. So
// the next key is installed beside the current one, used at the cutover, and the old one
// removed. Consul asks for a key by its value alone, and lists the values: what is in the
// rings is compared by fingerprint, and handed back to Consul.
type Gossip struct {
	settings Settings
	options  Options
}

// The interfaces that a Gossip fulfils.
var (
	_ rotation.Backend     = (*Gossip)(nil)
	_ rotation.Drafter     = (*Gossip)(nil)
	_ rotation.Recognizer  = (*Gossip)(nil)
	_ rotation.Activator   = (*Gossip)(nil)
	_ rotation.Preflighter = (*Gossip)(nil)
	_ rotation.Adopter     = (*Gossip)(nil)
	_ rotation.Warner      = (*Gossip)(nil)
	_ rotation.Examiner    = (*Gossip)(nil)
	_ rotation.Nouner      = (*Gossip)(nil)
)

// gossipTimeout bounds one request for the rings: where a member is silent, Serf waits for
// it, in the WAN for eight seconds and more.
const gossipTimeout = 25 * time.Second

// NewGossip returns a Gossip for settings that passed [Section]. It does no I/O.
func NewGossip(s Settings, o Options) (*Gossip, error) {
	if o.Timeout == 0 {
		o.Timeout = gossipTimeout
	}
	o, err := o.complete(s)
	if err != nil {
		return nil, err
	}
	if s.GossipKey == nil {
		return nil, rotation.Errorf(rotation.Invalid, "", "consul: the settings are of no gossip key")
	}
	return &Gossip{s, o}, nil
}

// Noun implements [rotation.Nouner].
func (g *Gossip) Noun() string { return "gossip key" }

// fingerprintOf says of a key which one it is. A key of random bytes cannot be found from it.
func fingerprintOf(key []byte) string {
	h := sha256.New()
	h.Write([]byte("keyturn gossip key\n"))
	h.Write(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(h.Sum(nil))
}

// printOf is fingerprintOf of a key as Consul writes it, or "".
func printOf(text string) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) == 0 {
		return ""
	}
	return fingerprintOf(key)
}

func (g *Gossip) title() string { return "keyturn " + g.options.Credential }

// print returns the fingerprint of a version's key, "" if none was drafted yet. A version
// that took over another's identity has none.
func (g *Gossip) print(v rotation.Version) string {
	if _, number := rotation.ParseTitle(v.Identity); number != v.Number {
		return ""
	}
	return v.Public[fieldFingerprint]
}

// Identify names the version: its key, which Consul has no name for, is known by its
// fingerprint once it is drafted. It reads the rings, so that what cannot be looked at is
// found out before anything is made.
func (g *Gossip) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity = rotation.Title(g.title(), next.Number)
	_, err := g.look(ctx)
	return next, err
}

// Draft returns a new key.
func (g *Gossip) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("consul: drafting a version that has no name yet")
	}
	var key [keyBytes]byte
	rand.Read(key[:]) // never fails since Go 1.24: it ends the program instead
	text := base64.StdEncoding.AppendEncode(nil, key[:])
	m := rotation.Material{fieldKey: secret.New(text), fieldFingerprint: secret.FromString(fingerprintOf(key[:]))}
	clear(key[:])
	clear(text)
	return m, nil
}

// Recognize implements [rotation.Recognizer].
func (g *Gossip) Recognize(v rotation.Version, m rotation.Material) (rotation.Version, error) {
	print := printOf(string(m[fieldKey].Reveal()))
	if print == "" {
		return v, fmt.Errorf("consul: recognising the key of version %d: it is missing", v.Number)
	}
	v = v.Clone()
	v.Public = map[string]string{fieldFingerprint: print}
	return v, nil
}

// Observe looks at the rings of every member of every pool.
func (g *Gossip) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	print := g.print(v)
	if print == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no key of it was drafted"}, nil
	}
	all, err := g.look(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	if !all.any(print) {
		return rotation.Standing{Status: rotation.Absent, Detail: "no member has the key"}, nil
	}
	return rotation.Standing{Status: rotation.Armed, Detail: all.describe(print)}, nil
}

// Arm installs the key, and waits until every member of every pool has it.
func (g *Gossip) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	value, ok := m[fieldKey]
	if !ok {
		return fmt.Errorf("consul: installing the key of version %d: it is missing", v.Number)
	}
	if print := g.print(v); print == "" || print != printOf(string(value.Reveal())) {
		return fmt.Errorf("consul: the key is not the one of version %d", v.Number)
	}
	all, err := g.look(ctx)
	if err != nil {
		return err
	}
	return g.install(ctx, all, value, "version "+fmt.Sprint(v.Number))
}

// install gives every member a key that some of them lack.
func (g *Gossip) install(ctx context.Context, all *rings, key secret.Value, what string) error {
	print := printOf(string(key.Reveal()))
	if all.everywhere(print) {
		return nil
	}
	if err := g.change(ctx, all, installing, key, what); err != nil {
		return err
	}
	return g.await(ctx, "has the key of "+what, func(r ring) bool { return r.keys[print] == r.nodes })
}

// Activate makes the key the primary everywhere. A member that joined since the key was
// installed gets it first. While one is down nothing is changed: it would come back with
// its old ring, and could not join.
func (g *Gossip) Activate(ctx context.Context, v rotation.Version) error {
	all, err := g.look(ctx)
	if err != nil {
		return err
	}
	print, what := g.print(v), "version "+fmt.Sprint(v.Number)
	key, there := all.values[print]
	switch {
	case print == "" || !there:
		return rotation.Errorf(rotation.Failed, "start again: keyturn prepare "+v.Credential, "consul: no member has the key of %s", what)
	case all.primary(print):
		return nil
	}
	if err := g.install(ctx, all, key, what); err != nil {
		return err
	}
	if err := g.change(ctx, all, using, key, what); err != nil {
		return err
	}
	return g.await(ctx, "encrypts with the key of "+what, func(r ring) bool { return r.primaries[print] == r.nodes })
}

// End removes the key, and waits until no member has it. The primary is never removed.
func (g *Gossip) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	print := g.print(v)
	if print == "" {
		return nil
	}
	all, err := g.look(ctx)
	if err != nil {
		return err
	}
	if !all.any(print) {
		return nil
	}
	if all.uses(print) {
		return refused("bring a new one first: keyturn rotate "+v.Credential, "the key of version %d is the primary: members encrypt with it, and it cannot be removed", v.Number)
	}
	what := "version " + fmt.Sprint(v.Number)
	g.options.Logger.InfoContext(ctx, "removing a gossip key", "version", v.Number, "fingerprint", print, "reason", string(why))
	if err := g.change(ctx, all, removing, all.values[print], what); err != nil {
		return err
	}
	return g.await(ctx, "has forgotten the key of "+what, func(r ring) bool { return r.keys[print] == 0 })
}

// ProbeSpec says how to try a version. It does no I/O.
func (g *Gossip) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	settings, err := json.Marshal(probeSettings{Gossip: v.Public[fieldFingerprint]})
	if err != nil {
		panic("consul: " + err.Error()) // a text has a JSON form
	}
	return rotation.ProbeSpec{Backend: "consul", Identity: v.Identity, Endpoints: g.settings.members(), Settings: settings}
}

// members returns where a key is tried.
func (s Settings) members() []string {
	if len(s.GossipKey.Probe) > 0 {
		return s.GossipKey.Probe
	}
	var out []string
	for _, text := range s.Servers {
		if u, err := url.Parse(text); err == nil {
			out = append(out, net.JoinHostPort(u.Hostname(), serfPort))
		}
	}
	return out
}

// Adopt takes over the primary key. That the target holds it, the probe of an adoption
// proves: it takes no other key.
func (g *Gossip) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	all, err := g.look(ctx)
	if err != nil {
		return v, err
	}
	print, key := all.thePrimary()
	if print == "" {
		return v, refused("make one the primary everywhere first: consul keyring -use", "members do not agree on the primary key")
	}
	if b, err := base64.StdEncoding.DecodeString(string(key.Reveal())); err == nil && !slices.ContainsFunc(b, func(c byte) bool { return c > unicode.MaxASCII || !unicode.IsPrint(rune(c)) }) {
		return v, refused("use one that `consul keygen` makes first; this one could be guessed, also from its fingerprint", "the primary key is a text that a person chose")
	}
	if has, told := v.Public[fieldFingerprint]; told && has != print {
		return v, refused("put the primary key there", "the target names another key than the primary")
	}
	v = v.Clone()
	v.Identity = rotation.Title(g.title(), v.Number)
	v.Public = map[string]string{fieldFingerprint: print}
	return v, nil
}

// checkGossip refuses what is said of tokens, and places that are none.
func (s Settings) checkGossip(fault faultFunc) {
	for key, set := range map[string]bool{"probe": len(s.Probe) > 0, "cache-time": s.CacheTime != "", "description": s.Description != "", "adopt": s.Adopt != "",
		"policies": len(s.Policies) > 0, "roles": len(s.Roles) > 0, "service-identities": len(s.ServiceIdentities) > 0, "node-identities": len(s.NodeIdentities) > 0} {
		if set {
			fault(key, "leave it out; for a token, make another credential", "this is said of a token, and a gossip key is rotated")
		}
	}
	for i, text := range s.GossipKey.Probe {
		host, port, err := net.SplitHostPort(text)
		if err != nil || host == "" || port == "" || strings.ContainsAny(text, "/@? ") {
			fault(fmt.Sprintf("gossip-key.probe.%d", i), "write HOST:PORT of Serf, which speaks TCP at it too: consul-1.example.com:8301", "this names no host with a port")
		} else if slices.Contains(s.GossipKey.Probe[:i], text) {
			fault(fmt.Sprintf("gossip-key.probe.%d", i), "name each once", "the same place stands there twice")
		}
	}
}
