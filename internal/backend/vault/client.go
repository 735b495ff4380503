package vault

import (
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

// A client asks the servers as the administrator.
type client struct {
	servers []server
	timeout time.Duration
}

// A server is asked by itself.
type server struct {
	url   string
	api   *api.Client
	close func()
}

// open reads the administrator's token. It does no I/O on the network, but for what [Options.Ready] does.
func open(ctx context.Context, s Settings, o Options) (*client, error) {
	token, err := s.Token.Read(o.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("vault: the administrator's token: %w", err))
	}
	if o.Ready != nil {
		if err := o.Ready(ctx); err != nil {
			return nil, err
		}
	}
	c := &client{timeout: o.Timeout}
	for _, u := range s.Servers {
		one, err := newServer(u, token, o.CA, s.InsecureTLS, o.Dial)
		if err != nil {
			return nil, fmt.Errorf("vault: %w", err)
		}
		c.servers = append(c.servers, one)
	}
	return c, nil
}

// close gives the connections back.
func (c *client) close() {
	for _, s := range c.servers {
		s.close()
	}
}

// newServer returns the API at a URL, with nothing from the environment in it. No request
// is sent twice: a share of a key that is sent again counts as another one.
func newServer(url string, token secret.Value, ca []byte, weaker []string, dial remote.Dial) (server, error) {
	config, err := remote.TLS(ca, weaker)
	if err != nil {
		return server{}, err
	}
	web := remote.Client(config, dial, remote.CallTimeout)
	c, err := api.NewClient(&api.Config{Address: url, HttpClient: web, MaxRetries: 0, DisableRedirects: true})
	if err != nil {
		return server{}, errors.New("the environment or the URL keeps Vault's client from starting") // its own words may hold either
	}
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	c.ClearNamespace()
	c.ClearToken()
	if !token.Empty() {
		c.SetToken(string(token.Reveal()))
	}
	return server{url, c, web.CloseIdleConnections}, nil
}

// ask asks one server after the other until one answers, and decodes what it says. Found
// is false for an answer without data: what was asked for is not there.
func (c *client) ask(ctx context.Context, doing string, into any, call func(context.Context, *api.Logical) (*api.Secret, error)) (found bool, err error) {
	var answer *api.Secret
	err = remote.InTurn(ctx, c.servers, func(s server) (err error) {
		answer, err = c.once(ctx, s, call)
		return wrap(s.url, doing, err)
	})
	return decode(doing, answer, err, into)
}

// once asks with a time of its own.
func (c *client) once(ctx context.Context, s server, call func(context.Context, *api.Logical) (*api.Secret, error)) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return call(ctx, s.api.Logical())
}

// decode reads the data of an answer.
func decode(doing string, answer *api.Secret, err error, into any) (found bool, _ error) {
	if err != nil || answer == nil || answer.Data == nil {
		return false, err
	}
	if into == nil {
		return true, nil
	}
	b, err := json.Marshal(answer.Data)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return false, fmt.Errorf("vault: %s: the answer cannot be read", doing) // it may hold a value
	}
	return true, nil
}

// read, write and list are the three ways to ask.

func (c *client) read(ctx context.Context, doing, path string, into any) (found bool, err error) {
	return c.ask(ctx, doing, into, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ReadWithContext(ctx, path)
	})
}

func (c *client) write(ctx context.Context, doing, path string, data map[string]any, into any) (found bool, err error) {
	return c.ask(ctx, doing, into, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.WriteWithContext(ctx, path, data)
	})
}

func (c *client) list(ctx context.Context, doing, path string) ([]string, error) {
	var answer struct{ Keys []string }
	_, err := c.ask(ctx, doing, &answer, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ListWithContext(ctx, path)
	})
	return answer.Keys, err
}

// each does something with every text of a list, a few at a time. Its first error ends it.
func each(ctx context.Context, texts []string, do func(context.Context, string) error) error {
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
	return wrap("", "asking", ctx.Err())
}
