// Package vaultapi asks servers of Vault and OpenBao: what backends share whose system it is, or
// who have it do something for them.
package vaultapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// atOnce is how many requests of a long list are under way together.
const atOnce = 8

// An Access says which servers are asked, and as whom.
type Access struct {
	Servers     []string      // URLs; they are asked in their order, until one answers
	Token       secret.Source // the administrator's
	InsecureTLS []string
	Words
}

// Words are what a backend says where its page knows more.
type Words struct {
	Name    string // its own, which its errors begin with
	Page    string // of docs/backends, with the policy that the token needs
	Missing string // the hint where Vault knows no such path
}

// A Client asks the servers as the administrator.
type Client struct {
	Servers []Server
	Timeout time.Duration // of one request
	Words

	lead lead
}

// A Server is asked by itself.
type Server struct {
	URL   string
	API   *api.Client
	Close func()
}

// Open reads the administrator's token. It does no I/O on the network, but for what
// [remote.Options.Ready] does.
func Open(ctx context.Context, a Access, o remote.Options) (*Client, error) {
	token, err := a.Token.Read(o.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "put it where token: says, from the runner's secrets", fmt.Errorf("%s: the administrator's token: %w", a.Name, err))
	}
	if o.Ready != nil {
		if err := o.Ready(ctx); err != nil {
			return nil, err
		}
	}
	c := &Client{Timeout: cmp.Or(o.Timeout, remote.CallTimeout), Words: a.Words}
	for _, u := range a.Servers {
		one, err := NewServer(u, token, o.CA, a.InsecureTLS, o.Dial)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
		c.Servers = append(c.Servers, one)
	}
	return c, nil
}

// Close gives the connections back.
func (c *Client) Close() {
	for _, s := range c.Servers {
		s.Close()
	}
}

// NewServer returns the API at a URL, with nothing from the environment in it. No request
// is sent twice: a share of a key that is sent again counts as another one.
func NewServer(url string, token secret.Value, ca []byte, weaker []string, dial remote.Dial) (Server, error) {
	config, err := remote.TLS(ca, weaker)
	if err != nil {
		return Server{}, err
	}
	web := remote.Client(config, dial, remote.CallTimeout)
	c, err := api.NewClient(&api.Config{Address: url, HttpClient: web, MaxRetries: 0, DisableRedirects: true})
	if err != nil {
		return Server{}, errors.New("the environment or the URL keeps Vault's client from starting") // its own words may hold either
	}
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	c.ClearNamespace()
	c.ClearToken()
	if !token.Empty() {
		c.SetToken(string(token.Reveal()))
	}
	return Server{url, c, web.CloseIdleConnections}, nil
}

// A Call asks one server.
type Call func(context.Context, *api.Logical) (*api.Secret, error)

// Ask asks one server after the other, the one that leads first, until one answers, and decodes
// what it says. Found is false for an answer without data: what was asked for is not there.
func (c *Client) Ask(ctx context.Context, doing string, into any, call Call) (found bool, err error) {
	var answer *api.Secret
	err = c.InTurn(ctx, doing, func(ctx context.Context, server *api.Client) (err error) {
		answer, err = call(ctx, server.Logical())
		return err
	})
	return c.decode(doing, answer, err, into)
}

// InTurn is [Client.Ask] for what has an answer of its own.
func (c *Client) InTurn(ctx context.Context, doing string, call func(context.Context, *api.Client) error) error {
	if err := c.LeaderFirst(ctx); err != nil {
		return err
	}
	return remote.InTurn(ctx, c.Servers, func(s Server) error {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		return c.Wrap(s.URL, doing, call(ctx, s.API))
	})
}

// AskOnce is [Client.Ask] for what must not be done twice: another server is asked only if the one
// before certainly did nothing.
func (c *Client) AskOnce(ctx context.Context, doing string, into any, call Call) (found bool, err error) {
	if err := c.LeaderFirst(ctx); err != nil {
		return false, err
	}
	var answer *api.Secret
	var errs []error
	for _, s := range c.Servers {
		var failed error
		answer, failed = c.once(ctx, s, call)
		errs = append(errs, c.Wrap(s.URL, doing, failed))
		if failed == nil {
			return c.decode(doing, answer, nil, into)
		}
		if !undone(failed) || ctx.Err() != nil {
			break
		}
	}
	if last := errs[len(errs)-1]; rotation.ClassOf(last) != rotation.Unknown {
		return false, last
	}
	return false, errors.Join(errs...)
}

// once asks with a time of its own.
func (c *Client) once(ctx context.Context, s Server, call Call) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return call(ctx, s.API.Logical())
}

// decode reads the data of an answer.
func (c *Client) decode(doing string, answer *api.Secret, err error, into any) (found bool, _ error) {
	if err != nil {
		return false, err
	}
	if found, err = Decode(answer, into); err != nil {
		err = fmt.Errorf("%s: %s: %w", c.Name, doing, err)
	}
	return found, err
}

// Decode reads the data of an answer. Found is false for one without data. Its error holds
// nothing of the answer, which may hold a value.
func Decode(answer *api.Secret, into any) (found bool, err error) {
	if answer == nil || answer.Data == nil {
		return false, nil
	}
	if into == nil {
		return true, nil
	}
	b, err := json.Marshal(answer.Data)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return false, errors.New("the answer cannot be read")
	}
	return true, nil
}

// Read reads a path.
func (c *Client) Read(ctx context.Context, doing, path string, into any) (found bool, err error) {
	return c.Ask(ctx, doing, into, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ReadWithContext(ctx, path)
	})
}

// Write writes to a path.
func (c *Client) Write(ctx context.Context, doing, path string, data map[string]any, into any) (found bool, err error) {
	return c.Ask(ctx, doing, into, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.WriteWithContext(ctx, path, data)
	})
}

// List lists what is below a path.
func (c *Client) List(ctx context.Context, doing, path string) ([]string, error) {
	var answer struct{ Keys []string }
	_, err := c.Ask(ctx, doing, &answer, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ListWithContext(ctx, path)
	})
	return answer.Keys, err
}

// Each does something with every text of a list, a few at a time. Its first error ends it.
func (c *Client) Each(ctx context.Context, texts []string, do func(context.Context, string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	places := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, text := range texts {
		if ctx.Err() != nil {
			break
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := do(ctx, text); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() == nil {
		return nil
	}
	if err := context.Cause(ctx); !errors.Is(err, ctx.Err()) {
		return err
	}
	return c.Wrap("", "asking", ctx.Err())
}

// Ready checks that every server is there, and unsealed.
func (c *Client) Ready(ctx context.Context) error {
	errs := make([]error, len(c.Servers))
	var wg sync.WaitGroup
	for i, s := range c.Servers {
		wg.Go(func() { errs[i] = c.ready(ctx, s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Client) ready(ctx context.Context, s Server) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	is, err := s.API.Sys().HealthWithContext(ctx)
	switch {
	case err != nil:
		return c.Wrap(s.URL, "asking for its health", err)
	case !is.Initialized:
		return c.Refused("vault operator init, or let it join the cluster", "%s is not initialized", s.URL)
	case is.Sealed:
		return c.Refused("vault operator unseal -address="+s.URL, "%s is sealed", s.URL)
	}
	return nil
}
