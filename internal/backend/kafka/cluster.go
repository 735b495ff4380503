package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A line is how brokers are reached, and as whom.
type line struct {
	user, mechanism string
	password        secret.Value
	ca              []byte
	weaker          []string
	dial            remote.Dial // nil: the network
}

// connect returns a client of one broker. It does no I/O.
func (l line) connect(address string) (*client, error) {
	dial := l.dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	if !slices.Contains(l.weaker, remote.Plaintext) {
		config, err := remote.TLS(l.ca, l.weaker)
		if err != nil {
			return nil, err
		}
		dial = withTLS(dial, config)
	}
	auth := func(context.Context) (scram.Auth, error) {
		return scram.Auth{User: l.user, Pass: string(l.password.Reveal())}, nil
	}
	mechanism := scram.Sha512(auth)
	if l.mechanism == sha256Name {
		mechanism = scram.Sha256(auth)
	}
	return &client{address: address, mechanism: mechanism, dial: dial}, nil
}

func withTLS(dial remote.Dial, config *tls.Config) remote.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := config.Clone()
		if c.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		conn := tls.Client(raw, c)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error is the one that says why
			return nil, err
		}
		return conn, nil
	}
}

// A cluster is its brokers, asked as the administrator.
type cluster struct {
	brokers           []broker
	patience, timeout time.Duration
}

// A broker is asked by itself: what it answers is what it knows. What is to be changed it hands
// on to the controller.
type broker struct {
	address string
	client  *client
	timeout time.Duration
}

// open reads the administrator's password. It does no I/O on the network, but for what
// [Options.Ready] does.
func (t *turn) open(ctx context.Context) (*cluster, error) {
	password, err := t.settings.AdminPassword.Read(t.options.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("kafka: the administrator's password: %w", err))
	}
	if t.options.Ready != nil {
		if err := t.options.Ready(ctx); err != nil {
			return nil, err
		}
	}
	return t.as(t.settings.Admin, t.settings.AdminMechanism, password)
}

// as returns the brokers, to be asked as a user.
func (t *turn) as(user, mechanism string, password secret.Value) (*cluster, error) {
	c := &cluster{patience: t.options.Patience, timeout: t.options.Timeout}
	l := line{user: user, mechanism: mechanism, password: password, ca: t.options.CA, weaker: t.settings.InsecureTLS, dial: t.options.Dial}
	for _, address := range t.settings.Brokers {
		client, err := l.connect(address)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("kafka: %w", err)
		}
		c.brokers = append(c.brokers, broker{address, client, t.options.Timeout})
	}
	return c, nil
}

func (c *cluster) close() {
	for _, b := range c.brokers {
		b.client.close()
	}
}

// ask asks one broker, within a time of its own.
func ask[R kmsg.Response](ctx context.Context, b broker, request kmsg.Request) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	return typed[R](b.client.request(ctx, request))
}

// any asks one broker after the other until one answers. What is asked may have been done by
// one that did not: it must do no harm when it is done again.
func (c *cluster) any(ctx context.Context, doing string, try func(context.Context, broker) error) error {
	return remote.InTurn(ctx, c.brokers, func(b broker) error { return wrap(b.address, doing, try(ctx, b)) })
}

// change has one broker change something, while the lease is ours.
func (c *cluster) change(ctx context.Context, doing string, try func(context.Context, broker) error) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	return c.any(ctx, doing, try)
}

// every asks all brokers at once, and returns what each answered, and the errors of those that
// did not.
func every[T any](ctx context.Context, c *cluster, doing string, try func(context.Context, broker) (T, error)) (found []T, answered []bool, err error) {
	found, answered = make([]T, len(c.brokers)), make([]bool, len(c.brokers))
	errs := make([]error, len(c.brokers))
	var wg sync.WaitGroup
	for i, b := range c.brokers {
		wg.Go(func() {
			var err error
			if found[i], err = try(ctx, b); err != nil {
				errs[i] = wrap(b.address, doing, err)
			}
			answered[i] = err == nil
		})
	}
	wg.Wait()
	return found, answered, errors.Join(errs...)
}

// until tries again until every broker says yes, or patience ends. Late says of one what it
// does not do yet.
func (c *cluster) until(ctx context.Context, doing, late string, try func(context.Context, broker) (bool, error)) error {
	return c.untilAfter(ctx, doing, late, try, nothing)
}

func nothing() error { return nil }

// untilAfter is until, with something that is done before brokers are asked again.
func (c *cluster) untilAfter(ctx context.Context, doing, late string, try func(context.Context, broker) (bool, error), before func() error) error {
	for deadline := time.Now().Add(c.patience); ; {
		yes, _, err := every(ctx, c, doing, try)
		if err != nil {
			return err
		}
		i := slices.Index(yes, false)
		if i < 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return rotation.Errorf(rotation.Unknown, "does it follow the controller? see: kafka-metadata-quorum.sh",
				"kafka: %s: %s: %s after %s", c.brokers[i].address, doing, late, c.patience)
		}
		if err := remote.Pause(ctx, 50*time.Millisecond); err != nil {
			return wrap("", doing, err)
		}
		if err := before(); err != nil {
			return err
		}
	}
}

// accepts waits until every broker takes the login that c is asked with. One that did not hear of
// the value yet refuses it; before it is asked again, something is done.
func (c *cluster) accepts(ctx context.Context, doing string, before func() error) error {
	return c.untilAfter(ctx, doing, "it is still refused", func(ctx context.Context, b broker) (bool, error) {
		_, err := ask[*kmsg.MetadataResponse](ctx, b, noTopics())
		if errors.Is(err, kerr.SaslAuthenticationFailed) {
			return false, nil
		}
		return true, err
	}, before)
}

// noTopics asks who the brokers are.
func noTopics() *kmsg.MetadataRequest {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	return request
}
