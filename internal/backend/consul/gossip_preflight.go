package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight checks that every member is there and answers, that the key in service is the
// primary one, and that the administrator's token may change keys. It reads only.
func (g *Gossip) Preflight(ctx context.Context, c rotation.Credential) error {
	all, err := g.look(ctx)
	if errors.Is(err, errMembers) {
		return rotation.Errorf(rotation.Refused, rotation.HintOf(err), "%w", err)
	}
	if err != nil {
		return err
	}
	current, ok := c.In(rotation.Current)
	if !ok {
		return refused("put it where the target is, then: keyturn adopt "+c.Name, "no gossip key is on record, and one is in use, which would stay valid")
	}
	// Between the two halves of a cutover the next version may be the primary already.
	if next, pending := c.In(rotation.Pending); !all.primary(g.print(current)) && !(pending && all.uses(g.print(next))) {
		return refused("find out who changed it: consul keyring -list", "the key of version %d, which is in service by the record, is not the primary: %s", current.Number, all.describe(g.print(current)))
	}
	return g.mayChange(ctx, all.asked)
}

// mayChange asks Consul what the token may do. A Consul that does not tell is no obstacle.
func (g *Gossip) mayChange(ctx context.Context, s server) error {
	ask := []map[string]string{{"Resource": "keyring", "Access": "write"}}
	var answers []struct{ Allow bool }
	c := &cluster{timeout: g.options.Timeout}
	err := c.once(ctx, s.api, func(ctx context.Context, _ *api.Client) error {
		return s.ask(ctx, http.MethodPost, "/v1/internal/acl/authorize", ask, &answers)
	})
	if err == nil && len(answers) == 1 && !answers[0].Allow {
		return refused(`give it a policy with keyring = "write"`, "%s: the administrator's token may list gossip keys, and not change any", s.url)
	}
	return nil
}

// Warnings implements [rotation.Warner].
func (g *Gossip) Warnings(ctx context.Context, _ string) ([]string, error) {
	out := []string{"who joins after the cleanup needs the new key: what new agents are configured with (encrypt) is read from the target, or must follow it",
		"Consul ends no key by itself: until cleanup has removed the old one it stays valid"}
	c, err := g.options.open(ctx, g.settings)
	if err != nil {
		return out, err
	}
	var without []string
	for _, s := range c.servers {
		var self map[string]map[string]any
		err := c.once(ctx, s.api, func(ctx context.Context, client *api.Client) error {
			_, err := client.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
			return err
		})
		if disabled, _ := self["DebugConfig"]["DisableKeyringFile"].(bool); err == nil && disabled {
			without = append(without, s.url)
		}
	}
	if len(without) > 0 {
		out = append(out, fmt.Sprintf("%v keep no keyring on disk (disable_keyring_file): restarted with the old key in their configuration they cannot join", without))
	}
	return out, nil
}

// Examine implements [rotation.Examiner]: how many keys there are.
func (g *Gossip) Examine(ctx context.Context) ([]rotation.Remark, error) {
	all, err := g.look(ctx)
	if err != nil {
		return nil, err
	}
	var found []rotation.Remark
	for print := range all.values {
		found = append(found, rotation.Remark{Level: rotation.Fine, Text: "gossip key " + print + ": " + all.describe(print)})
	}
	if len(found) > 2 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("there are %d gossip keys, and two at most are needed", len(found)),
			Hint: "compare with keyturn status, and remove by hand what it does not name: consul keyring -remove"})
	}
	return found, nil
}
