package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A cluster is the servers of a datacenter, asked as the administrator.
type cluster struct {
	servers           []server
	patience, timeout time.Duration
}

// A server is asked by itself.
type server struct {
	url   string
	api   *api.Client
	token secret.Value // of the administrator
	http  *http.Client
}

// open reads the administrator's token. It does no I/O on the network, but for what [Options.Ready] does.
func (b *Backend) open(ctx context.Context) (*cluster, error) { return b.options.open(ctx, b.settings) }

func (o Options) open(ctx context.Context, settings Settings) (*cluster, error) {
	token, err := settings.Token.Read(o.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "put it where token: says, from the runner's secrets", fmt.Errorf("consul: the administrator's token: %w", err))
	}
	if o.Ready != nil {
		if err := o.Ready(ctx); err != nil {
			return nil, err
		}
	}
	c := &cluster{patience: o.Patience, timeout: o.Timeout}
	for _, u := range settings.Servers {
		over, err := newHTTP(o.CA, settings.InsecureTLS, o.Dial)
		if err != nil {
			return nil, fmt.Errorf("consul: %w", err)
		}
		client, err := newClient(u, token, over)
		if err != nil {
			return nil, fmt.Errorf("consul: %w", err)
		}
		c.servers = append(c.servers, server{u, client, token, over})
	}
	return c, nil
}

// newHTTP returns what makes the requests. Each has a connection of its own.
func newHTTP(ca []byte, weaker []string, dial remote.Dial) (*http.Client, error) {
	config, err := remote.TLS(ca, weaker)
	if err != nil {
		return nil, err
	}
	web := remote.Client(config, dial, remote.CallTimeout)
	web.Transport.(*http.Transport).DisableKeepAlives = true
	return web, nil
}

// newClient returns the API at a URL, with nothing from the environment in it.
func newClient(url string, token secret.Value, over *http.Client) (*api.Client, error) {
	return api.NewClient(&api.Config{Address: url, Token: string(token.Reveal()), HttpClient: over})
}

// ask asks what the API's client has no call for that takes a context: in and out are JSON.
// The error of an answer is an [api.StatusError], as of every other call.
func (s server) ask(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Consul-Token", string(s.token.Reveal()))
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // what was read is whole
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return api.StatusError{Code: resp.StatusCode, Body: string(text)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// anyServer asks one server after the other until one answers.
func (c *cluster) anyServer(ctx context.Context, doing string, ask func(context.Context, *api.Client) error) error {
	return remote.InTurn(ctx, c.servers, func(s server) error { return wrap(s.url, doing, c.once(ctx, s.api, ask)) })
}

// once asks with a time of its own. Within it a server that was started a moment ago, and does not
// know the administrator yet, is asked again.
func (c *cluster) once(ctx context.Context, client *api.Client, ask func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		err := ask(ctx, client)
		if !isStranger(err) {
			return err
		}
		if by, problem := leader(ctx, client); problem != nil || by == nil {
			return cmp.Or(problem, err)
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return errBehind
		}
	}
}

// leader returns the token that asks, as the leader knows it once all of its log is read: nil
// if it knows none. Until then a server knows the tokens of its last snapshot alone.
func leader(ctx context.Context, client *api.Client) (*api.ACLToken, error) {
	t, _, err := client.ACL().TokenReadSelf((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if isUnknown(err) {
		return nil, nil
	}
	return t, err
}

// find returns the token with an accessor, as the leader knows it; nil if there is none.
func (c *cluster) find(ctx context.Context, accessor string) (found *api.ACLToken, err error) {
	err = c.anyServer(ctx, "reading token "+accessor, func(ctx context.Context, client *api.Client) error {
		found, err = read(ctx, client, accessor, &api.QueryOptions{RequireConsistent: true})
		return err
	})
	return found, err
}

func read(ctx context.Context, client *api.Client, accessor string, how *api.QueryOptions) (*api.ACLToken, error) {
	t, _, err := client.ACL().TokenRead(accessor, how.WithContext(ctx))
	if isAbsent(err) {
		return nil, nil
	}
	return t, err
}

func (c *cluster) create(ctx context.Context, want *api.ACLToken) (made *api.ACLToken, err error) {
	err = c.anyServer(ctx, "making token "+want.AccessorID, func(ctx context.Context, client *api.Client) error {
		made, _, err = client.ACL().TokenCreate(want, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
	return made, err
}

func (c *cluster) delete(ctx context.Context, accessor string) error {
	return c.anyServer(ctx, "deleting token "+accessor, func(ctx context.Context, client *api.Client) error {
		_, err := client.ACL().TokenDelete(accessor, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// after looks for the token whose making or deletion failed: it may be done all the same.
func (c *cluster) after(ctx context.Context, accessor string, failed error) (*api.ACLToken, error) {
	t, err := c.find(ctx, accessor)
	if err != nil {
		return nil, rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed)
	}
	return t, nil
}

// everywhere returns what each server itself knows of a version's token, nil for one that
// knows none.
func (c *cluster) everywhere(ctx context.Context, v rotation.Version) ([]*api.ACLToken, error) {
	found, errs := make([]*api.ACLToken, len(c.servers)), make([]error, len(c.servers))
	var wg sync.WaitGroup
	for i, s := range c.servers {
		wg.Go(func() {
			errs[i] = wrap(s.url, "reading token "+v.Identity, c.once(ctx, s.api, func(ctx context.Context, client *api.Client) error {
				t, err := read(ctx, client, v.Identity, &api.QueryOptions{AllowStale: true})
				if t != nil && of(t, v) {
					found[i] = t
				}
				return err
			}))
		})
	}
	wg.Wait()
	return found, errors.Join(errs...)
}

// known waits until every server knows a version's token, or none does.
func (c *cluster) known(ctx context.Context, v rotation.Version, want bool) error {
	for deadline := time.Now().Add(c.patience); ; {
		found, err := c.everywhere(ctx, v)
		if err != nil {
			return err
		}
		late := slices.IndexFunc(found, func(t *api.ACLToken) bool { return (t != nil) != want })
		if late < 0 {
			return nil
		}
		if time.Now().After(deadline) {
			text := "does not know token %s after %s"
			if !want {
				text = "still knows token %s after %s"
			}
			return rotation.Errorf(rotation.Unknown, "is it part of the cluster? see: consul operator raft list-peers",
				"consul: %s "+text, c.servers[late].url, v.Identity, c.patience)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	return wrap("", "waiting", remote.Pause(ctx, d))
}
