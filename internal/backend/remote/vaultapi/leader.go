package vaultapi

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// lag is how long a node that follows is given for what the one that leads has taken.
const lag = time.Second

// A lead puts the node that leads in front of a client's Servers, once.
type lead struct {
	once sync.Once
	err  error
}

// LeaderFirst has the node that leads asked first. OpenBao's others answer by themselves what
// is only read: a moment late, and also while nobody leads. So without a leader nothing is
// known, nor if no server answers. A server that does not say who leads, or names one that is
// none of the servers, such as one behind a load balancer, is asked as it is.
func (c *Client) LeaderFirst(ctx context.Context) error {
	c.lead.once.Do(func() {
		leads, told, err := c.FindLeader(ctx)
		switch known := func(s Server) bool { return sameURL(s.URL, told) }; {
		case err != nil:
			c.lead.err = err
		case leads >= 0:
			c.Servers = InFront(c.Servers, leads)
		case told == nobody:
			c.lead.err = rotation.Errorf(rotation.Unknown, "are enough of them unsealed? see: vault operator raft list-peers", "%s: no node leads", c.Name)
		case slices.ContainsFunc(c.Servers, known):
			c.lead.err = rotation.Errorf(rotation.Unknown, "is it running, and can it be reached from here? else the others elect another one", "%s: %s leads, and does not answer", c.Name, told)
		}
	})
	return c.lead.err
}

// Anew has the leader looked for once more: another one may lead by now.
func (c *Client) Anew() { c.lead = lead{} }

// nobody is told as the leader by who follows, and knows none.
const nobody = "nobody"

// FindLeader asks every server whether it leads: the number of the first that says so, in their
// order as far as they answer together, or -1 and whom the others tell; "" if they tell nothing. Its error is that none
// answered.
func (c *Client) FindLeader(ctx context.Context) (leads int, told string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	type said struct {
		i   int
		is  *api.LeaderResponse
		err error
	}
	answers := make(chan said, len(c.Servers))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, s := range c.Servers {
		wg.Go(func() {
			is, err := s.API.Sys().LeaderWithContext(ctx)
			answers <- said{i, is, c.Wrap(s.URL, "asking who leads", err)}
		})
	}
	errs, silent := make([]error, len(c.Servers)), true
	leads = -1
	var waited <-chan time.Time
	for range c.Servers {
		select {
		case <-waited:
			return leads, "", nil
		case a := <-answers:
			errs[a.i], silent = a.err, silent && a.err != nil && rotation.ClassOf(a.err) == rotation.Unknown
			switch {
			case a.err != nil: // it says so itself when it is asked
			case a.is.IsSelf || !a.is.HAEnabled:
				if leads < 0 || a.i < leads {
					leads = a.i
				}
				if waited == nil {
					waited = time.After(together)
				}
			case a.is.LeaderAddress != "":
				told = a.is.LeaderAddress
			case told == "":
				told = nobody
			}
		}
		if leads == 0 {
			return leads, "", nil
		}
	}
	switch {
	case leads >= 0:
		told = ""
	case silent:
		return leads, "", errors.Join(errs...)
	}
	return leads, told, nil
}

// together is how long the others are waited for once one said that it leads: several may,
// where something stands before them.
const together = 100 * time.Millisecond

func sameURL(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }

// InFront puts the i-th in front.
func InFront[E any](all []E, i int) []E { return slices.Concat(all[i:i+1], all[:i], all[i+1:]) }

// CaughtUp waits, if a node follows another one, until what that has taken should have come
// to it.
func CaughtUp(ctx context.Context, s Server) (waited bool) {
	is, err := s.API.Sys().LeaderWithContext(ctx)
	return err == nil && is.HAEnabled && !is.IsSelf && remote.Pause(ctx, lag) == nil
}
