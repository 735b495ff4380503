package kafka_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

const (
	sha256Name = "SCRAM-SHA-256"
	sha512Name = "SCRAM-SHA-512"
)

// TestOnePrincipal rotates from what was adopted and twice on, by the mechanisms of one principal,
// where clients must log in again after a moment. Both passwords are valid at once, each for its
// mechanism; a client that is connected by the one that ended is closed when its time is over, one of
// the other goes on; delegation tokens end; nothing else of the principal changes.
func TestOnePrincipal(t *testing.T) {
	k := asking.Get(t)
	f := newFixture(t, k)
	b := f.mechanisms(func(s *kafka.Settings) { s.Principal, s.AcceptLiveConnections = f.name, false })
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	if warnings, err := b.Warnings(t.Context(), f.name); err != nil || !strings.Contains(fmt.Sprint(warnings), "until it must log in again: within 4s") {
		t.Errorf("Warnings = %q, %v, want how long clients go on", warnings, err)
	}
	rules, quotas := k.Rules(t, f.name), k.Quotas(t, f.name)
	last, err := b.Adopt(t.Context(), f.version(1, rotation.Current))
	f.must(err)
	password := f.old
	type client struct {
		*kgo.Client
		rotation.Version
	}
	connect := func(v rotation.Version, password string) client {
		c := client{k.ClientBy(t, v.Public["mechanism"], v.Public["username"], password, kgo.ProducerLinger(0)), v}
		t.Cleanup(c.Close)
		return c
	}
	produce := func(c client) error {
		return c.ProduceSync(t.Context(), &kgo.Record{Topic: f.name, Value: []byte("x")}).FirstErr()
	}
	for number := 2; number <= 3; number++ {
		last.State = rotation.Current
		old := connect(last, password)
		f.must(produce(old))
		next, m := f.armed(b, number, last)
		want := map[bool]string{true: sha256Name, false: sha512Name}[last.Public["mechanism"] == sha512Name]
		if next.Public["mechanism"] != want || next.Public["username"] != f.name || next.Identity != f.name+" "+want {
			t.Fatalf("version %d is %+v, want %s by %s", number, next, f.name, want)
		}
		crossed := b.ProbeSpec(last)
		if got := kafka.Login(t.Context(), crossed, m); got.Answer != rotation.Dead {
			t.Errorf("the value of version %d by the other mechanism: %s, want it refused", number, got.Answer)
		}
		value := string(m["password"].Reveal())
		current := connect(next, value)
		f.must(produce(current))
		f.must(produce(old))
		token := f.token(old.Client)
		old = connect(last, password) // which must log in again soon, but not during the end
		f.must(produce(old))
		began := time.Now()
		f.must(b.End(t.Context(), last, rotation.ToRetire))
		ended := time.Now()
		if err := produce(old); err != nil && time.Since(began) < lasts/2 { // which is what Preflight and Warnings are for
			t.Errorf("a client that is connected cannot go on right after the end of its password: %v", err)
		}
		for err = nil; err == nil && time.Since(ended) < 3*lasts; time.Sleep(100 * time.Millisecond) {
			err = produce(old)
			f.must(produce(current))
		}
		if !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("a client by the password of version %d says %v %s after its end", last.Number, err, time.Since(ended))
		}
		if took := time.Since(ended); took > lasts+5*time.Second {
			t.Errorf("a client by the password of version %d went on for %s, want at most %s", last.Number, took, lasts)
		}
		if left := f.tokens(last.Public["username"]); len(left) > 0 {
			t.Errorf("%d tokens are left, of which one is %s", len(left), token.TokenID)
		}
		if standing, err := b.Observe(t.Context(), last); err != nil || standing.Status != rotation.Ended {
			t.Errorf("after its end version %d is %+v, %v", last.Number, standing, err)
		}
		if standing, err := b.Observe(t.Context(), next); err != nil || standing.Status != rotation.Armed {
			t.Errorf("after the other's end version %d is %+v, %v", number, standing, err)
		}
		last, password = next, value
	}
	if got := k.Rules(t, f.name); !slices.Equal(got, rules) || !slices.Equal(k.Quotas(t, f.name), quotas) {
		t.Errorf("the principal may %q with quotas %q, want them as they were", got, k.Quotas(t, f.name))
	}
	remarks, err := b.Examine(t.Context())
	if err != nil || len(remarks) != 1 || !strings.Contains(remarks[0].Text, "SCRAM-SHA-256 that nobody has the value of, since version 2, SCRAM-SHA-512 of version 3") {
		t.Errorf("Examine = %+v, %v", remarks, err)
	}
}

// tokens returns the delegation tokens of a user.
func (f *fixture) tokens(user string) []kmsg.DescribeDelegationTokenResponseTokenDetail {
	f.t.Helper()
	request := kmsg.NewPtrDescribeDelegationTokenRequest()
	request.Owners = []kmsg.DescribeDelegationTokenRequestOwner{{PrincipalType: "User", PrincipalName: user}}
	return f.k.Ask(f.t, 0, request).(*kmsg.DescribeDelegationTokenResponse).TokenDetails
}

// TestOnePrincipalRefusals is what is refused of one principal before anything is made.
func TestOnePrincipalRefusals(t *testing.T) {
	f := newFixture(t, three.Get(t))
	both, denied, tokened := f.name+"-both", f.name+"-denied", f.name+"-tokened"
	for _, user := range []string{both, denied, tokened} {
		f.k.User(t, user, f.old)
	}
	f.k.UserBy(t, sha256Name, both, f.old)
	f.k.Allow(t, denied, testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: "*", Operation: kmsg.ACLOperationAll, Deny: true})
	client := f.k.Client(t, tokened, f.old)
	defer client.Close()
	f.token(client)
	of := func(user string) func(*kafka.Settings) { return func(s *kafka.Settings) { s.Principal = user } }
	by256 := func(s *kafka.Settings) { s.Mechanism = sha256Name }
	strict := func(s *kafka.Settings) { s.AcceptLiveConnections = false }
	adopts := func(v rotation.Version, change ...func(*kafka.Settings)) error {
		_, err := f.mechanisms(change...).Adopt(t.Context(), v)
		return err
	}
	looks := func(c rotation.Credential, change ...func(*kafka.Settings)) error {
		return f.mechanisms(change...).Preflight(t.Context(), c)
	}
	identify := func(others []rotation.Version, change ...func(*kafka.Settings)) error {
		_, err := f.mechanisms(change...).Identify(t.Context(), f.version(3, rotation.Pending), others)
		return err
	}
	live := func(identity string) rotation.Credential {
		return rotation.Credential{Versions: []rotation.Version{{Number: 1, Identity: identity, State: rotation.Current}}}
	}
	fresh, none := f.version(1, rotation.Current), rotation.Credential{}
	reads := fresh
	reads.Public = map[string]string{"mechanism": "PLAIN"}
	f.must(looks(none))
	f.must(looks(live(""))) // which is to be made
	f.must(adopts(fresh, of(f.name)))
	f.must(looks(live(f.name+" "+sha256Name), of(f.name)))
	f.must(adopts(f.version(1, rotation.Current), of(f.name), func(s *kafka.Settings) { s.Adopt = f.name }))
	only := f.k.OneMechanism(1)
	asked := func(s *kafka.Settings) { s.Brokers = []string{f.k.Addresses()[0], only, f.k.Addresses()[2]} }
	used := func(s *kafka.Settings) { s.Probe = []string{f.k.Addresses()[0], only, f.k.Addresses()[2]} }
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing to adopt":       {adopts(fresh, of("nobody")), `"nobody" has no credential for SCRAM-SHA-512`},
		"another mechanism":      {adopts(fresh, of(f.name), by256), "has no credential for SCRAM-SHA-256; it has SCRAM-SHA-512"},
		"services read another":  {adopts(reads, of(f.name)), "the services read another mechanism than SCRAM-SHA-512"},
		"both are there":         {adopts(fresh, of(both)), "has SCRAM-SHA-256 with 4096 iterations, which Keyturn did not make too"},
		"denied already":         {adopts(fresh, of(denied)), "is denied what it needs"},
		"denied, when it looks":  {looks(none, of(denied)), "is denied what it needs"},
		"tokens":                 {looks(none, of(tokened)), "has delegation tokens (1)"},
		"clients for ever":       {looks(none, strict), "connections.max.reauth.ms is not set on " + f.k.Addresses()[0]},
		"one mechanism alone":    {looks(none, asked), only + " does not take SCRAM-SHA-256"},
		"one, where services do": {looks(none, used), f.k.Addresses()[1] + " does not take SCRAM-SHA-256 on its listener ONE"},
		"not all are named":      {looks(none, func(s *kafka.Settings) { s.Brokers = s.Brokers[:1] }), "3 brokers are in the cluster, and 1 are named"},
		"no free mechanism":      {identify(nil, of(both)), "SCRAM-SHA-512 with 4096 iterations, which Keyturn did not make"},
		"both are live":          {identify([]rotation.Version{{Number: 1, Identity: f.model() + " " + sha512Name}, {Number: 2, Identity: f.model() + " " + sha256Name}}), "is version 2's"},
		"by principals before":   {looks(live("orders-a")), `version 1 is "orders-a", which is none of these settings' turn`},
		"another principal":      {looks(live("orders " + sha512Name)), "none of these settings' turn"},
		"principals, after that": {f.backend().Preflight(t.Context(), live(f.model()+" "+sha512Name)), "none of these settings' turn"},
		"ended by others":        {f.mechanisms().End(t.Context(), live("orders-a").Versions[0], rotation.ToRetire), "which is no mechanism of"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, c.err, c.want)
			continue
		}
		if rotation.ClassOf(c.err) != rotation.Refused || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: class %d, hint %q: want a refusal with a hint", name, rotation.ClassOf(c.err), rotation.HintOf(c.err))
		}
		for _, secret := range []string{f.old, f.password} {
			if strings.Contains(c.err.Error(), secret) {
				t.Errorf("%s: the error holds a value", name)
			}
		}
	}
	warnings, err := f.mechanisms().Warnings(t.Context(), f.name)
	if text := fmt.Sprint(warnings); err != nil || !strings.Contains(text, "for as long as it stays connected, for connections.max.reauth.ms is not set on") || !strings.Contains(text, "within 1h") {
		t.Errorf("Warnings = %q, %v, want both: of the one mechanism clients go on for ever, of the other for an hour", warnings, err)
	}
	// What nobody has the value of is free, as the hint says.
	f.must(freed(f, both))
	v, err := f.mechanisms(of(both)).Adopt(t.Context(), fresh)
	f.must(err)
	if err := identify([]rotation.Version{v}, of(both)); err != nil {
		t.Errorf("after the other mechanism's credential was overwritten as the hint says: %v", err)
	}
}

// freed overwrites what a user has for SCRAM-SHA-256 as a hint says.
func freed(f *fixture, user string) error {
	request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	request.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: user, Mechanism: 1, Iterations: 16383, Salt: []byte(text()), SaltedPassword: []byte(text())[:32]}}
	for _, r := range f.k.Ask(f.t, 0, request).(*kmsg.AlterUserSCRAMCredentialsResponse).Results {
		if r.ErrorCode != 0 {
			return kerr.ErrorForCode(r.ErrorCode)
		}
	}
	time.Sleep(200 * time.Millisecond) // the other brokers hear of it
	return nil
}
