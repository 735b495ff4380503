package cli_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/swarm"
	"github.com/keyturn/keyturn/internal/target/swarm/connect"
	"github.com/keyturn/keyturn/internal/testserver"
)

// BenchmarkLogin is a login at a database that only an overlay reaches: connect, TLS
// and SCRAM. Direct is a login from within the network.
func BenchmarkLogin(b *testing.B) {
	o := newOverlaid(b, nil)
	engine := stackEngine(b)
	line, private, err := testserver.NewSSHKey()
	k := &stack{shop: &shop{t: b}, engine: engine}
	k.must(err)
	sshd := testserver.NewSSHD(b, testserver.SSHDOptions{Authorized: []string{line}, Socket: k.socket(), Config: []string{"LogLevel QUIET"}})
	k.config = b.TempDir() + "/keyturn.yml"
	settings := connect.Settings{Host: sshd.URL(""), Getenv: func(string) string { return string(private) },
		SSH: connect.SSH{Key: secret.Source{Env: "K"}, KnownHosts: k.beside("known_hosts", sshd.KnownHosts())}}
	far, err := connect.Open(settings)
	k.must(err)
	b.Cleanup(func() { k.must(far.Close()) })
	host, _, _ := strings.Cut(o.pg.Addr(), ":")
	relay := func(e *swarm.Target) *swarm.Relay {
		r := e.Relay("bench")
		b.Cleanup(func() { k.must(r.Close()) })
		k.must(r.Start(b.Context()))
		return r
	}
	options := swarm.Options{ProbeImage: probeImage, Layouts: map[string]swarm.Layout{"bench": {Placements: []rotation.Placement{{Service: host}}}}}
	for _, way := range []struct {
		name string
		dial func(ctx context.Context, network, address string) (net.Conn, error)
	}{
		{"direct", testserver.DialIn(o.netns)},
		{"relay", relay(swarm.New(engine.Client(), options)).Dial},
		{"relay-over-ssh", relay(swarm.New(far.Client, options)).Dial},
	} {
		b.Run(way.name, func(b *testing.B) {
			config, err := pgx.ParseConfig(o.pg.AdminURL())
			k.must(err)
			config.DialFunc = way.dial
			config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
			for b.Loop() {
				conn, err := pgx.ConnectConfig(b.Context(), config)
				k.must(err)
				_ = conn.Close(b.Context())
			}
		})
	}
}
