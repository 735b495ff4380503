package certificate_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var shared testserver.SharedPebble

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &shared, &sharedVault)) }

const accountVariable = "KEYTURN_ACME_KEY"

var serial atomic.Int64

// A fixture is an account and a name of the test's own.
type fixture struct {
	t       testing.TB
	pebble  *testserver.Pebble
	name    string // of the credential
	account string // the key, in PEM form
	cut     atomic.Bool
}

func newFixture(t testing.TB, p *testserver.Pebble) *fixture {
	t.Helper()
	f := &fixture{t: t, pebble: p, name: fmt.Sprintf("orders%d", serial.Add(1))}
	var err error
	f.account, err = p.AccountKey()
	f.must(err)
	return f
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) settings() certificate.Settings {
	return certificate.Settings{Names: []string{f.name + ".test"}, Roots: "roots.pem",
		ACME: &certificate.ACME{Directory: f.pebble.Directory(), Account: secret.Source{Env: accountVariable}, AgreeTerms: true, CA: "ca.pem",
			HTTP01: &certificate.HTTP01{Directory: f.pebble.Challenges()}}}
}

// made is what changes a backend before it is made.
type made struct {
	*certificate.Settings
	*certificate.Options
}

func (f *fixture) backend(change ...func(made)) *certificate.Backend {
	f.t.Helper()
	s := f.settings()
	o := certificate.Options{Credential: f.name, Roots: f.pebble.Roots(), Overlap: time.Hour, Options: remote.Options{CA: f.pebble.CA(), Patience: 15 * time.Second, Timeout: 6 * time.Second,
		Getenv: func(name string) string {
			if name != accountVariable {
				return ""
			}
			return f.account
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if f.cut.Load() {
				address = "127.0.0.1:1"
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}}
	for _, c := range change {
		c(made{&s, &o})
	}
	b, err := certificate.New(s, o)
	f.must(err)
	return b
}

// version is one of the fixture's credential.
func (f *fixture) version(number int, state rotation.State) rotation.Version {
	return rotation.Version{Credential: f.name, Number: number, State: state}
}

// issue has a version issued.
func (f *fixture) issue(b *certificate.Backend, number int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	f.t.Helper()
	v, err := b.Identify(f.t.Context(), f.version(number, rotation.Pending), others)
	f.must(err)
	v, err = b.Order(f.t.Context(), v)
	f.must(err)
	v, m, err := b.Mint(f.t.Context(), v)
	f.must(err)
	return v, m
}

// status is what Pebble says of a version's certificate.
func (f *fixture) status(v rotation.Version) string {
	f.t.Helper()
	status, reason, err := f.pebble.Status(f.t.Context(), v.Public["serial"])
	f.must(err)
	if status == "Valid" {
		return status
	}
	return fmt.Sprintf("%s %d", status, reason)
}

// leaf is a version's certificate in PEM form.
func leaf(t testing.TB, v rotation.Version) []byte {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(v.Public["leaf"])
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// lives checks how long a certificate does.
func lives(t testing.TB, m rotation.Material, want time.Duration) {
	t.Helper()
	block, _ := pem.Decode(m["certificate"].Reveal())
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life < want || life > want+time.Hour {
		t.Errorf("the certificate lives for %s, want %s", life, want)
	}
}

// canaries are texts that stand nowhere but where services read them: pieces of the key, but for
// the last one, which is of its public half.
func canaries(m rotation.Material) []string {
	var out []string
	for _, line := range strings.Split(string(m["key"].Reveal()), "\n") {
		if len(line) > 20 && !strings.HasPrefix(line, "-----") {
			out = append(out, line)
		}
	}
	return out[:len(out)-1]
}

// ownPebble is one of the test's own.
func ownPebble(t testing.TB) *testserver.Pebble {
	return testserver.NewPebble(t, testserver.PebbleOptions{})
}

// joined is a pair in one file, as some servers want it.
func joined(m rotation.Material) secret.Value {
	return secret.New(append(append([]byte{}, m["key"].Reveal()...), m["certificate"].Reveal()...))
}
