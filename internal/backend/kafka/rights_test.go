package kafka_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

func copied(s *kafka.Settings) { s.RightsOf = "" }

// TestLiveClients rotates from an adopted user and round to the first principal again. Ending a
// version stops the client that is connected as it, and ends its delegation tokens.
func TestLiveClients(t *testing.T) {
	f := newFixture(t, one.Get(t))
	b := f.backend(copied, func(s *kafka.Settings) { s.Adopt = f.name })
	last, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
	f.must(err)
	if last.Identity != f.name || last.Public["username"] != f.name || last.Public["mechanism"] != "SCRAM-SHA-512" {
		t.Fatalf("adopted is %+v, want %s", last, f.name)
	}
	password, rules, quotas := f.old, f.k.Rules(t, f.name), f.k.Quotas(t, f.name)
	for number := 2; number <= 4; number++ {
		last.State = rotation.Current
		live := f.k.Client(t, last.Identity, password, kgo.ProducerLinger(0))
		defer live.Close()
		produce := func() error {
			return live.ProduceSync(t.Context(), &kgo.Record{Topic: f.name, Value: []byte("x")}).FirstErr()
		}
		f.must(produce())
		token := f.token(live)
		viaToken := func() error {
			client, err := kgo.NewClient(kgo.SeedBrokers(f.k.Addresses()...), kgo.DialTLSConfig(f.k.TLS()),
				kgo.SASL(scram.Auth{User: token.TokenID, Pass: tokenPassword(token), IsToken: true}.AsSha512Mechanism()))
			f.must(err)
			defer client.Close()
			return client.Ping(t.Context())
		}
		err := viaToken()
		for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); err = viaToken() { // the broker hears of it in a moment
			time.Sleep(50 * time.Millisecond)
		}
		f.must(err)
		next, m := f.armed(b, number, last)
		f.must(b.Compare(t.Context(), next, last))
		if got := f.k.Rules(t, next.Identity); !slices.Equal(got, rules) {
			t.Errorf("%s may %q, want %q", next.Identity, got, rules)
		}
		if got := f.k.Quotas(t, next.Identity); !slices.Equal(got, quotas) {
			t.Errorf("%s has the quotas %q, want %q", next.Identity, got, quotas)
		}
		standing, err := b.Observe(t.Context(), last)
		if err != nil || standing.Status != rotation.Armed || len(standing.Uses) != 1 || standing.Uses[0].Name != "delegation token "+token.TokenID {
			t.Errorf("before its end version %d is %+v, %v, want it armed with one token", last.Number, standing, err)
		}
		f.must(b.End(t.Context(), last, rotation.ToRetire))
		if err := produce(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("the live client of version %d produces, and the answer is %v", last.Number, err)
		}
		if err := viaToken(); err == nil {
			t.Errorf("a token of version %d still works", last.Number)
		}
		standing, err = b.Observe(t.Context(), last)
		if err != nil || standing.Status != rotation.Ended || len(standing.Uses) != 0 {
			t.Errorf("after its end version %d is %+v, %v", last.Number, standing, err)
		}
		last, password = next, string(m["password"].Reveal())
	}
	if last.Identity != f.name+"-a" {
		t.Errorf("version 4 is %s, want the first principal's turn again", last.Identity)
	}
	if remarks, err := b.Examine(t.Context()); err != nil || len(remarks) != 3 || !strings.Contains(remarks[1].Text, "that nobody has the value of, since version 3") {
		t.Errorf("Examine = %+v, %v", remarks, err)
	}
	// What is changed afterwards is told apart.
	extra := testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: f.name + "-more", Operation: kmsg.ACLOperationRead}
	was := last
	was.Identity = f.model()
	f.k.Quota(t, last.Identity, "", "producer_byte_rate", 5)
	f.k.Allow(t, last.Identity, extra)
	err = b.Compare(t.Context(), last, was)
	for _, want := range []string{`+ ALLOW READ on TOPIC "` + f.name + `-more"`, "+ quota producer_byte_rate=5", "- quota producer_byte_rate=100000000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Compare = %v, want %q", err, want)
		}
	}
}

// token makes a delegation token of whoever is logged in.
func (f *fixture) token(client *kgo.Client) *kmsg.CreateDelegationTokenResponse {
	f.t.Helper()
	request := kmsg.NewPtrCreateDelegationTokenRequest()
	request.MaxLifetimeMillis = time.Hour.Milliseconds()
	made, err := request.RequestWith(f.t.Context(), client)
	f.must(err)
	f.must(kerr.ErrorForCode(made.ErrorCode))
	return made
}

// TestRefusals is what is refused before anything is made.
func TestRefusals(t *testing.T) {
	f := newFixture(t, three.Get(t))
	denied, plain := f.name+"-denied", f.name+"-plain"
	f.k.User(t, denied, f.old)
	f.k.Allow(t, denied, testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: "*", Operation: kmsg.ACLOperationAll, Deny: true})
	f.k.User(t, plain, f.old)
	foreign := f.name + "-foreign"
	f.k.User(t, foreign, f.old)
	adopts := func(user string, change ...func(*kafka.Settings)) error {
		_, err := f.backend(append(change, func(s *kafka.Settings) { s.Adopt = user })...).Adopt(t.Context(), f.version(1, rotation.Current))
		return err
	}
	looks := func(change ...func(*kafka.Settings)) error {
		return f.backend(change...).Preflight(t.Context(), rotation.Credential{})
	}
	identify := func(number int, change ...func(*kafka.Settings)) error {
		_, err := f.backend(change...).Identify(t.Context(), f.version(number, rotation.Pending), nil)
		return err
	}
	as := func(user, password string, do func() error) error {
		admin, was := f.admin, f.password
		f.admin, f.password = user, password
		defer func() { f.admin, f.password = admin, was }()
		return do()
	}
	f.must(looks())
	f.must(identify(1))
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing to adopt":      {adopts(""), "nothing says as which user"},
		"unknown to adopt":      {adopts("nobody"), `"nobody" has no credential for SCRAM-SHA-512`},
		"another mechanism":     {adopts(f.name, func(s *kafka.Settings) { s.Mechanism = "SCRAM-SHA-256" }), "has no credential for SCRAM-SHA-256"},
		"Keyturn's own":         {adopts(f.admin), "Keyturn's own administrator"},
		"denied already":        {adopts(denied), "is denied what it needs"},
		"no free principal":     {identify(1, func(s *kafka.Settings) { s.Principals = []string{foreign, plain} }), "SCRAM-SHA-512 with 4096 iterations, which Keyturn did not make"},
		"nothing to copy":       {identify(1, copied), "whose ACLs and quotas could be copied"},
		"too many":              {identify(4096), "no more than 4095"},
		"not all are named":     {looks(func(s *kafka.Settings) { s.Brokers = s.Brokers[:1] }), "3 brokers are in the cluster, and 1 are named"},
		"administrator may not": {as(plain, f.old, func() error { return looks() }), "the administrator may not ALTER"},
		"may not, when it asks": {as(plain, f.old, func() error { return identify(1) }), "CLUSTER_AUTHORIZATION_FAILED"},
		"wrong password":        {as(f.admin, "hunter2", func() error { return looks() }), "the broker refuses the login"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, c.err, c.want)
			continue
		}
		if rotation.ClassOf(c.err) != rotation.Refused || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: class %d, hint %q: want a refusal with a hint", name, rotation.ClassOf(c.err), rotation.HintOf(c.err))
		}
		for _, secret := range []string{f.old, f.password, "hunter2"} {
			if strings.Contains(c.err.Error(), secret) {
				t.Errorf("%s: the error holds a value", name)
			}
		}
	}
	warnings, err := f.backend().Warnings(t.Context(), f.name)
	if text := fmt.Sprint(warnings); err != nil || !strings.Contains(text, "lists no sessions") || !strings.Contains(text, "connections.max.reauth.ms is not set") {
		t.Errorf("Warnings = %q, %v", warnings, err)
	}
	// The brokers have it set for the other mechanism.
	warnings, err = f.backend(func(s *kafka.Settings) { s.Mechanism = "SCRAM-SHA-256" }).Warnings(t.Context(), f.name)
	if text := fmt.Sprint(warnings); err != nil || strings.Contains(text, "connections.max.reauth.ms") {
		t.Errorf("Warnings = %q, %v, want none of connections that last for ever", warnings, err)
	}
}

// TestRestartAfterTheEnd starts a broker again after versions were ended: every other user is still
// known, and they are still dead (hard problem 41).
func TestRestartAfterTheEnd(t *testing.T) {
	k := asking.Get(t)
	f := newFixture(t, k)
	want := map[string]rotation.Answer{}
	probes := map[string]func() rotation.ProbeResult{}
	for name, b := range map[string]rotationtest.Drafting{"principals": f.backend(), "mechanisms": f.mechanisms()} {
		old, m1 := f.armed(b, 1)
		old.State = rotation.Current
		next, m2 := f.armed(b, 2, old)
		f.must(b.End(t.Context(), old, rotation.ToRetire))
		want[name+", the ended one"], want[name+", the next one"] = rotation.Dead, rotation.Alive
		probes[name+", the ended one"] = func() rotation.ProbeResult { return kafka.Login(t.Context(), b.ProbeSpec(old), m1) }
		probes[name+", the next one"] = func() rotation.ProbeResult { return kafka.Login(t.Context(), b.ProbeSpec(next), m2) }
	}
	k.Kill(0)
	f.must(k.Start(0))
	k.Await(t, 0)
	for name, probe := range probes {
		if got := probe(); got.Answer != want[name] {
			t.Errorf("%s: %s (%s), want %s", name, got.Answer, got.Reason, want[name])
		}
	}
	f.must(f.backend().Preflight(t.Context(), rotation.Credential{})) // as the administrator
}

// tokenPassword is what a delegation token logs in with.
func tokenPassword(token *kmsg.CreateDelegationTokenResponse) string {
	return base64.StdEncoding.EncodeToString(token.HMAC)
}
