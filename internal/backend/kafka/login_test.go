package kafka_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestAnswers is what a probe makes of what a broker says.
func TestAnswers(t *testing.T) {
	f := newFixture(t, one.Get(t))
	b := f.backend()
	v, m := f.armed(b, 1)
	f.k.Allow(t, v.Identity, testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: f.name, Operation: kmsg.ACLOperationDescribe})
	stranger := f.name + "-stranger"
	f.k.User(t, stranger, "hers")
	f.k.User(t, "root", "his")
	spec := b.ProbeSpec(v)
	at := func(change func(*rotation.ProbeSpec)) rotation.ProbeSpec {
		s := spec
		change(&s)
		return s
	}
	asks := func(change func(*kafka.Settings)) rotation.ProbeSpec { return f.backend(change).ProbeSpec(v) }
	of := func(value string) rotation.Material { return rotation.Material{"password": secret.FromString(value)} }
	value := string(m["password"].Reveal())
	jaas := func(user, password string) rotation.Material {
		return rotation.Material{"jaas": secret.FromString(`org.apache.kafka.common.security.scram.ScramLoginModule required username="` + user + `" password="` + password + `";`)}
	}
	gone := func() string {
		closed, err := net.Listen("tcp", "127.0.0.1:0")
		f.must(err)
		defer closed.Close()
		return closed.Addr().String()
	}()
	does := func(what func(net.Conn)) rotation.ProbeSpec {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		f.must(err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go what(conn)
			}
		}()
		return at(func(s *rotation.ProbeSpec) { s.Endpoints = []string{l.Addr().String()} })
	}
	overloaded := does(func(conn net.Conn) { _ = conn.Close() }) // as a broker does that has too many connections
	silent := does(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	alien := does(func(conn net.Conn) { _, _ = conn.Write([]byte("SSH-2.0-x\r\n")); _ = conn.Close() })
	authority, err := testserver.NewAuthority()
	f.must(err)
	other := func(s *kafka.Settings) { s.Topics = []string{f.name + "-other"} }
	f.k.Topic(t, f.name+"-other")
	for name, c := range map[string]struct {
		spec rotation.ProbeSpec
		m    rotation.Material
		want rotation.Answer
	}{
		"right":                {spec, m, rotation.Alive},
		"its one field":        {spec, rotation.Material{"other": m["password"]}, rotation.Alive},
		"a line of JAAS":       {spec, jaas(v.Identity, value), rotation.Alive},
		"no topic to look at":  {asks(func(s *kafka.Settings) { s.Topics = nil }), m, rotation.Alive},
		"wrong value":          {spec, of("hunter2"), rotation.Dead},
		"wrong in JAAS":        {spec, jaas(v.Identity, "hunter2"), rotation.Dead},
		"another's JAAS":       {spec, jaas(stranger, value), rotation.Inconclusive},
		"unknown user":         {at(func(s *rotation.ProbeSpec) { s.Identity = "nobody" }), m, rotation.Dead},
		"another mechanism":    {asks(func(s *kafka.Settings) { s.Mechanism = "SCRAM-SHA-256" }), m, rotation.Dead},
		"not authorised":       {at(func(s *rotation.ProbeSpec) { s.Identity = stranger }), of("hers"), rotation.Unfit},
		"a super user":         {at(func(s *rotation.ProbeSpec) { s.Identity = "root" }), of("his"), rotation.Unfit},
		"another topic":        {asks(other), m, rotation.Unfit},
		"no field":             {spec, rotation.Material{"a": m["password"], "b": m["password"]}, rotation.Inconclusive},
		"broker down":          {at(func(s *rotation.ProbeSpec) { s.Endpoints = []string{gone} }), m, rotation.Inconclusive},
		"one of two down":      {at(func(s *rotation.ProbeSpec) { s.Endpoints = append([]string{gone}, s.Endpoints...) }), m, rotation.Inconclusive},
		"unknown authority":    {at(func(s *rotation.ProbeSpec) { s.CA = authority.PEM }), m, rotation.Inconclusive},
		"plain text to TLS":    {asks(func(s *kafka.Settings) { s.InsecureTLS = []string{"plaintext"} }), m, rotation.Inconclusive},
		"too many connections": {overloaded, m, rotation.Inconclusive},
		"no answer":            {silent, m, rotation.Inconclusive},
		"no Kafka":             {alien, m, rotation.Inconclusive},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			got := kafka.Login(ctx, c.spec, c.m)
			if got.Answer != c.want {
				t.Errorf("%s (%s), want %s", got.Answer, got.Reason, c.want)
			}
			if got.Answer != rotation.Alive && got.Reason == "" {
				t.Errorf("no reason is given")
			}
			if strings.Contains(got.Reason, value) {
				t.Errorf("the reason holds the value")
			}
		})
	}
}

// TestHeldUp is a broker that takes no more connections: that says nothing of a credential.
func TestHeldUp(t *testing.T) {
	f := newFixture(t, one.Get(t))
	b := f.backend()
	v, m := f.armed(b, 1)
	const limit = "listener.name.clients.max.connections"
	held, err := tls.Dial("tcp", f.k.Addresses()[0], f.k.TLS())
	f.must(err)
	f.k.Limit(t, limit, "1")
	var got rotation.ProbeResult
	for end := time.Now().Add(time.Minute); got.Answer != rotation.Inconclusive && time.Now().Before(end); { // the limit holds in a moment
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		got = kafka.Login(ctx, b.ProbeSpec(v), m)
		cancel()
	}
	f.k.Limit(t, limit, "")
	f.must(held.Close())
	if got.Answer != rotation.Inconclusive {
		t.Errorf("a broker with too many connections: %s (%s), want it to be unknown", got.Answer, got.Reason)
	}
	if got := kafka.Login(t.Context(), b.ProbeSpec(v), m); got.Answer != rotation.Alive {
		t.Errorf("after that: %s (%s), want it to be alive", got.Answer, got.Reason)
	}
}
