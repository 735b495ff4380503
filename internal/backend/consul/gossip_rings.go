package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A ring is what the members of one pool say of their keys, by fingerprint.
type ring struct {
	pool            string
	nodes           int            // alive, of whom all answered
	keys, primaries map[string]int // how many have the key, and encrypt with it
}

// rings are those of every pool, while every member that did not leave is alive.
type rings struct {
	rings  []ring
	values map[string]secret.Value
	asked  server // that answered
}

func (r *rings) all(is func(ring) bool) bool {
	return !slices.ContainsFunc(r.rings, func(x ring) bool { return !is(x) })
}

func (r *rings) everywhere(print string) bool {
	return r.all(func(x ring) bool { return x.keys[print] == x.nodes })
}

func (r *rings) primary(print string) bool {
	return r.all(func(x ring) bool { return x.primaries[print] == x.nodes })
}

// any reports whether some member has the key, uses whether one encrypts with it.
func (r *rings) any(print string) bool {
	return !r.all(func(x ring) bool { return x.keys[print] == 0 })
}

func (r *rings) uses(print string) bool {
	return !r.all(func(x ring) bool { return x.primaries[print] == 0 })
}

// thePrimary returns the key that every member encrypts with, if there is one.
func (r *rings) thePrimary() (string, secret.Value) {
	for print, value := range r.values {
		if r.primary(print) {
			return print, value
		}
	}
	return "", secret.Value{}
}

// describe says which members have a key.
func (r *rings) describe(print string) string {
	var parts []string
	for _, x := range r.rings {
		text := fmt.Sprintf("%s: on %d of %d", x.pool, x.keys[print], x.nodes)
		if x.primaries[print] == x.nodes {
			text += ", the primary"
		} else if n := x.primaries[print]; n > 0 {
			text += fmt.Sprintf(", the primary of %d", n)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// look asks one server, which asks every member of every pool. A member that is down, or
// does not answer, is named; then nothing is known of its ring.
func (g *Gossip) look(ctx context.Context) (*rings, error) {
	c, err := g.options.open(ctx, g.settings)
	if err != nil {
		return nil, err
	}
	var found *rings
	var errs []error
	for _, s := range c.servers {
		err := answered(func() error { found, err = c.rings(ctx, s); return err })
		if rotation.ClassOf(err) != rotation.Unknown || errors.Is(err, errMembers) || errors.Is(err, errSilent) {
			return found, err
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// Answers of a server that every other would give, too.
var (
	errMembers = errors.New("a member does not take part")
	errSilent  = errors.New("not every member answers")
)

// answered asks again where some members did not answer, all of them being alive: what
// Serf asks by gossip may get lost. Every question and every change may be repeated.
func answered(ask func() error) (err error) {
	for range 3 {
		if err = ask(); !errors.Is(err, errSilent) {
			break
		}
	}
	return err
}

// rings asks one server: first for the rings, then for the members. So one that is no member
// of a ring any more, because it was found to be down, is among those that are down.
func (c *cluster) rings(ctx context.Context, s server) (*rings, error) {
	var answers []*api.KeyringResponse
	err := c.once(ctx, s.api, func(ctx context.Context, client *api.Client) (err error) {
		answers, err = client.Operator().KeyringList((&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return nil, c.silent(ctx, s, "listing the gossip keys", err)
	}
	seen, err := c.members(ctx, s)
	if err != nil {
		return nil, err
	}
	if len(seen.down) > 0 {
		return nil, missing(s, seen.down)
	}
	segments := slices.ContainsFunc(answers, func(a *api.KeyringResponse) bool { return a.Segment != "" })
	out := &rings{values: map[string]secret.Value{}, asked: s}
	home := ""
	for _, a := range answers {
		switch {
		case home != "" && a.Datacenter != home:
			return nil, refused("rotate it by hand: consul keyring", "%s is federated with another datacenter (%s, %s), whose members cannot be looked at: not built yet", s.url, home, a.Datacenter)
		case a.Partition != "" && a.Partition != "default":
			return nil, refused("rotate it by hand: consul keyring", "%s has the admin partition %q, whose members cannot be looked at: not built yet", s.url, a.Partition)
		case !a.WAN && a.Segment == "" && seen.alive < a.NumNodes:
			return nil, refused(`give the administrator's token node_prefix "" { policy = "read" }`, "%s shows %d of %d members: whether one is down cannot be told", s.url, seen.alive, a.NumNodes)
		case !a.WAN && !segments && seen.alive > a.NumNodes:
			return nil, rotation.Errorf(rotation.Unknown, "run it again", "consul: %s: %w: a member joined in this moment", s.url, errSilent)
		case a.WAN && !segments && seen.servers > a.NumNodes:
			return nil, rotation.Errorf(rotation.Unknown, "a server that starts joins by itself, within a minute; see: consul members -wan",
				"consul: %s: %w: of %d servers %d are in the WAN pool", s.url, errSilent, seen.servers, a.NumNodes)
		}
		home = a.Datacenter
		out.rings = append(out.rings, ring{poolOf(a), a.NumNodes, out.count(a.Keys), out.count(a.PrimaryKeys)})
	}
	if len(out.rings) == 0 {
		return nil, rotation.Errorf(rotation.Unknown, "", "consul: %s lists no ring of gossip keys", s.url)
	}
	return out, nil
}

// count keys the numbers by fingerprint, and holds the values.
func (r *rings) count(keys map[string]int) map[string]int {
	out := map[string]int{}
	for key, n := range keys {
		if print := printOf(key); print != "" {
			out[print] = n
			r.values[print] = secret.FromString(key)
		}
	}
	return out
}

func poolOf(a *api.KeyringResponse) string {
	switch {
	case a.WAN:
		return "WAN"
	case a.Segment != "":
		return "segment " + a.Segment
	}
	return "LAN"
}

// The status of a member: see serf.MemberStatus.
const (
	memberAlive = 1
	memberLeft  = 3
)

// A membership is what a server says of who takes part.
type membership struct {
	down           []string // in any pool
	alive, servers int      // how many of its datacenter are alive, and how many servers of them
}

// members asks a server for the members of its pools. A server of ours that left is down,
// too: Consul itself lets one that is dead leave, within seconds (autopilot), and it may come
// back. One that comes back is in the LAN pool first, and in the WAN pool a while later.
func (c *cluster) members(ctx context.Context, s server) (seen membership, err error) {
	var left []string
	for _, pool := range []string{"segment=" + api.AllSegments, "wan=1"} {
		var found []*api.AgentMember
		err := c.once(ctx, s.api, func(ctx context.Context, _ *api.Client) error {
			return s.ask(ctx, http.MethodGet, "/v1/agent/members?"+pool, nil, &found)
		})
		if err != nil {
			return seen, gossipError(s, "listing the members", err)
		}
		for _, m := range found {
			isServer := pool != "wan=1" && m.Tags["role"] == "consul"
			switch {
			case m.Status == memberAlive && pool != "wan=1":
				seen.alive++
				if isServer {
					seen.servers++
				}
			case m.Status == memberLeft && isServer:
				left = append(left, m.Name)
			case m.Status != memberAlive && m.Status != memberLeft && !slices.Contains(seen.down, strings.TrimSuffix(m.Name, "."+m.Tags["dc"])):
				seen.down = append(seen.down, m.Name)
			}
		}
	}
	if seen.servers < len(c.servers) {
		seen.down = append(seen.down, left...)
	}
	slices.Sort(seen.down)
	return seen, nil
}

// missing says which members are down.
func missing(s server, down []string) error {
	return rotation.Errorf(rotation.Unknown, "bring it back, or, if it will never be: consul force-leave NAME, and out of servers with it; it would come back with another ring, and could not join",
		"consul: %s: %w: down is %s", s.url, errMembers, strings.Join(down, ", "))
}

// silent says who did not answer, where somebody did not.
func (c *cluster) silent(ctx context.Context, s server, doing string, failed error) error {
	text, status := refusal(failed)
	if status != http.StatusInternalServerError || !strings.Contains(text, "nodes reported") || strings.Contains(text, textPlain) {
		return gossipError(s, doing, failed)
	}
	if seen, err := c.members(ctx, s); err == nil && len(seen.down) > 0 {
		return missing(s, seen.down)
	}
	return rotation.Errorf(rotation.Unknown, "who it is, Consul says once it holds it for failed: consul members; then run it again",
		"consul: %s: %s: %w", s.url, doing, errSilent)
}

// textPlain is what a member says that does not encrypt: see internal_query.go of Serf.
const textPlain = "encryption not enabled"

// gossipError is wrap, without the text of the answer: it may tell keys.
func gossipError(s server, doing string, err error) error {
	text, status := refusal(err)
	switch {
	case status == 0:
		return wrap(s.url, doing, err)
	case strings.Contains(text, textPlain):
		return refused("give every agent a key first: encrypt, see https://developer.hashicorp.com/consul/docs/security/encryption", "%s: %s: the gossip is not encrypted", s.url, doing)
	case isUnknown(err):
		return refused("is it the token of this datacenter, and was it deleted?", "%s: %s: Consul does not know the administrator's token", s.url, doing)
	case status == http.StatusForbidden:
		return refused(`give the administrator's token a policy with keyring = "write" and node_prefix "" { policy = "read" }`, "%s: %s: Permission denied", s.url, doing)
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return rotation.Errorf(rotation.Unknown, "look at its log", "consul: %s: %s: it answers %d", s.url, doing, status)
	}
	return rotation.Errorf(rotation.Failed, "look at its log", "consul: %s: %s: it answers %d", s.url, doing, status)
}

// A keyringCall changes every ring.
type keyringCall struct {
	doing string
	call  func(*api.Operator, string, *api.WriteOptions) error
}

var (
	installing = keyringCall{"installing", (*api.Operator).KeyringInstall}
	using      = keyringCall{"using", (*api.Operator).KeyringUse}
	removing   = keyringCall{"removing", (*api.Operator).KeyringRemove}
)

// change makes one change of every ring, by the server that told of them. What was not
// answered may be done all the same, and is looked at afterwards by whoever waits for it.
func (g *Gossip) change(ctx context.Context, all *rings, k keyringCall, key secret.Value, what string) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	c := &cluster{timeout: g.options.Timeout}
	return answered(func() error {
		err := c.once(ctx, all.asked.api, func(ctx context.Context, client *api.Client) error {
			return k.call(client.Operator(), string(key.Reveal()), (&api.WriteOptions{}).WithContext(ctx))
		})
		if err == nil {
			return nil
		}
		return c.silent(ctx, all.asked, k.doing+" the key of "+what, err)
	})
}

// await looks until every ring is so.
func (g *Gossip) await(ctx context.Context, want string, is func(ring) bool) error {
	for deadline := time.Now().Add(g.options.Patience); ; {
		all, err := g.look(ctx)
		if err != nil {
			return err
		}
		if all.all(is) {
			return nil
		}
		if time.Now().After(deadline) {
			late := slices.IndexFunc(all.rings, func(r ring) bool { return !is(r) })
			return rotation.Errorf(rotation.Unknown, "see: consul keyring -list", "consul: not every member of %s %s after %s", all.rings[late].pool, want, g.options.Patience)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
