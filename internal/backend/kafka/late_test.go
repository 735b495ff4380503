package kafka_test

import (
	"context"
	"net"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
)

// TestLateWrite ends a version, and lets what an earlier run wrote to the same end, to a broker
// that stood still, come after that: the end is proven all the same.
func TestLateWrite(t *testing.T) {
	f := newFixture(t, one.Get(t))
	v, m := f.armed(f.backend(), 1)
	const mark = 12288 + 1 // of an ended version 1
	dials := make(chan chan struct{})
	over := make(chan struct{})
	o := f.options()
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		goOn := make(chan struct{})
		select {
		case dials <- goOn:
			<-goOn
		case <-over:
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	b, err := kafka.New(f.settings(), o)
	f.must(err)
	ended := make(chan error, 1)
	go func() { ended <- b.End(context.WithoutCancel(t.Context()), v, rotation.ToRetire) }()
	defer close(over)
	for late := false; ; {
		select {
		case goOn := <-dials: // the last of which is that of the value that is tried
			if !late && f.k.Iterations(t, v.Identity) == mark {
				late = true
				f.k.UserOf(t, "SCRAM-SHA-512", v.Identity, text(), mark)
			}
			close(goOn)
		case err := <-ended:
			f.must(err)
			if !late {
				t.Error("nothing was written in between")
			}
			if got := kafka.Login(t.Context(), b.ProbeSpec(v), m); got.Answer != rotation.Dead {
				t.Errorf("the version is %s (%s)", got.Answer, got.Reason)
			}
			return
		}
	}
}
