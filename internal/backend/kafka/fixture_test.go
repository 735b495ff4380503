package kafka_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var (
	one   testserver.SharedKafka
	three = testserver.SharedKafka{Brokers: 3}

	// asking has clients log in again after a moment.
	asking = testserver.SharedKafka{More: []string{fmt.Sprintf("listener.name.clients.scram-sha-256.connections.max.reauth.ms=%d", lasts.Milliseconds()),
		fmt.Sprintf("listener.name.clients.scram-sha-512.connections.max.reauth.ms=%d", lasts.Milliseconds())}}
)

const lasts = 4 * time.Second

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &one, &three, &asking)) }

const passwordVariable = "KEYTURN_KAFKA_PASSWORD"

var serial atomic.Int64

// A fixture is an administrator, a topic, a model of its users' rights, and a user who has its
// password by hand, all of them the test's own.
type fixture struct {
	t        testing.TB
	k        *testserver.Kafka
	name     string // of the credential, the topic, and the user
	admin    string // the administrator's name, and its password:
	password string
	old      string // the user's password
}

func newFixture(t testing.TB, k *testserver.Kafka) *fixture {
	t.Helper()
	f := &fixture{t: t, k: k, name: fmt.Sprintf("orders%d", serial.Add(1)), password: text(), old: text()}
	f.admin = f.name + "-keyturn"
	k.User(t, f.admin, f.password)
	k.Administrator(t, f.admin)
	k.Topic(t, f.name)
	for _, user := range []string{f.name, f.model()} {
		k.Allow(t, user, testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: f.name, Operation: kmsg.ACLOperationAll},
			testserver.KafkaRule{Type: kmsg.ACLResourceTypeGroup, Name: f.name, Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: kmsg.ACLOperationRead},
			testserver.KafkaRule{Type: kmsg.ACLResourceTypeTransactionalId, Name: f.name, Operation: kmsg.ACLOperationWrite, Host: "127.0.0.1"},
			testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: f.name + "-private", Operation: kmsg.ACLOperationRead, Deny: true})
		k.Quota(t, user, "", "producer_byte_rate", 1e8)
		k.Quota(t, user, "batch", "consumer_byte_rate", 1e7)
	}
	k.User(t, f.name, f.old)
	return f
}

// text is a value to look for.
func text() string { return string(secret.Generate().Reveal()) }

func (f *fixture) model() string { return f.name + "-model" }

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) settings() kafka.Settings {
	return kafka.Settings{Brokers: f.k.Addresses(), Admin: f.admin, AdminPassword: secret.Source{Env: passwordVariable}, CA: "ca.pem",
		Principals: []string{f.name + "-a", f.name + "-b", f.name + "-c"}, RightsOf: f.model(), Topics: []string{f.name}}
}

func (f *fixture) backend(change ...func(*kafka.Settings)) *kafka.Backend {
	f.t.Helper()
	s := f.settings()
	for _, c := range change {
		c(&s)
	}
	b, err := kafka.New(s, f.options())
	f.must(err)
	return b
}

// mechanisms is the backend of one principal: the model, which has no password yet.
func (f *fixture) mechanisms(change ...func(*kafka.Settings)) *kafka.Mechanisms {
	f.t.Helper()
	s := f.settings()
	s.Principals, s.RightsOf, s.Principal, s.AcceptLiveConnections = nil, "", f.model(), true
	for _, c := range change {
		c(&s)
	}
	b, err := kafka.NewMechanisms(s, f.options())
	f.must(err)
	return b
}

func (f *fixture) options() kafka.Options {
	return kafka.Options{Options: remote.Options{CA: f.k.CA(), Patience: 20 * time.Second, Timeout: 2 * time.Second, Getenv: func(name string) string {
		if name != passwordVariable {
			return ""
		}
		return f.password
	}}}
}

// version is one of the fixture's credential.
func (f *fixture) version(number int, state rotation.State) rotation.Version {
	return rotation.Version{Credential: f.name, Number: number, State: state}
}

// armed is a version that was brought to be accepted.
func (f *fixture) armed(b rotationtest.Drafting, number int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	f.t.Helper()
	return rotationtest.Armed(f.t, b, f.version(number, rotation.Pending), others...)
}
