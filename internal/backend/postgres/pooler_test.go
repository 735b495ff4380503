package postgres_test

import (
	"context"
	"encoding/json"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
)

// refuser is a server, or a pooler, that ends every login by one error: at once,
// or after it has asked for SCRAM-SHA-256 and got the client's first message.
func refuser(t *testing.T, early bool, answer pgproto3.ErrorResponse) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		b := pgproto3.NewBackend(c, c)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		if !early {
			b.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
			if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeSASL) != nil {
				return
			}
			if _, err := b.Receive(); err != nil {
				return
			}
		}
		b.Send(&answer)
		_ = b.Flush()
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// TestAPoolersRefusal: PgBouncer says 08P01 for whatever it does not like. Its
// words tell a refused login from the rest, and only where there is a pooler.
func TestAPoolersRefusal(t *testing.T) {
	for _, tt := range []struct {
		code, text string
		early      bool
		want       rotation.Answer // where there may be a pooler
	}{
		{"08P01", "SASL authentication failed", false, rotation.Dead},
		{"08P01", "password authentication failed", false, rotation.Dead},
		{"08P01", "no such user", true, rotation.Dead},
		{"08P01", "no such user: orders_a", true, rotation.Inconclusive},
		{"08P01", "server login failed: FATAL password authentication failed for user \"orders_a\"", false, rotation.Inconclusive},
		{"08P01", "bouncer config error", true, rotation.Inconclusive},
		{"08P01", "no such database: orders", true, rotation.Inconclusive},
		{"08P01", "SASL authentication failed ", false, rotation.Inconclusive},
		{"XX000", "SASL authentication failed", false, rotation.Inconclusive},
		{"28000", "no such user", true, rotation.Unfit},
	} {
		addr := refuser(t, tt.early, pgproto3.ErrorResponse{Severity: "FATAL", Code: tt.code, Message: tt.text})
		for _, direct := range []bool{false, true} {
			settings := map[string]any{"role": "orders", "insecure_tls": []string{"plaintext"}}
			want := tt.want
			if direct {
				settings["direct"] = []string{addr}
				if want == rotation.Dead {
					want = rotation.Inconclusive
				}
			}
			spec := rotation.ProbeSpec{Backend: "postgres", Identity: "orders_a", Endpoints: []string{"postgres://" + addr + "/orders"}}
			spec.Settings, _ = json.Marshal(settings)
			r := postgres.Login(context.Background(), spec, material("old"))
			if r.Answer != want || r.Endpoints[0].Code != tt.code {
				t.Errorf("%s %q, direct %v: Login = %q %q (%s), want %q", tt.code, tt.text, direct, r.Answer, r.Endpoints[0].Code, r.Reason, want)
			}
		}
	}
}
