package vault

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/secret"
)

// leaderFirst returns the endpoints, with the one that leads in front.
func (t trial) leaderFirst(ctx context.Context) []string {
	all := t.spec.Endpoints
	if len(all) < 2 {
		return all
	}
	c := vaultapi.Client{Timeout: 2 * time.Second} // it is only in which order they are tried
	defer c.Close()
	for _, endpoint := range all {
		s, err := vaultapi.NewServer(endpoint, secret.Value{}, t.spec.CA, t.settings.InsecureTLS, nil)
		if err != nil {
			return all
		}
		c.Servers = append(c.Servers, s)
	}
	leads, _, _ := c.FindLeader(ctx) // without one, in the order that they have
	return vaultapi.InFront(all, max(0, leads))
}
