package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

var _ rotation.Examiner = (*Backend)(nil)

const (
	someSkew = time.Minute         // worth saying; maxSkew is refused
	certSoon = 30 * 24 * time.Hour // how long a certificate should be valid
)

// Examine implements [rotation.Examiner]: release, TLS, certificate and clock of
// every host of the administrator's URL, and who weakened what.
func (b *Backend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var found []rotation.Remark
	say := func(level rotation.Level, hint, format string, args ...any) {
		found = append(found, rotation.Remark{Level: level, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if weaker := b.settings.InsecureTLS; len(weaker) > 0 {
		say(rotation.Warning, "better the server, and take the key out", "insecure-tls weakens every connection: %s", strings.Join(weaker, ", "))
	}
	if b.settings.Rights == byCreateRole {
		b.examineRights(ctx, c.primary, say)
	}
	for _, s := range c.servers {
		role := "primary"
		if s.standby {
			role = "standby"
		}
		what, until, ok := transport(s)
		say(rotation.Fine, "", "%s: PostgreSQL %s, %s, %s", s.name, release(s.version), role, what)
		if ok && until.Sub(b.options.Now()) < certSoon {
			say(rotation.Warning, "give the server a new one before: else nobody can log in", "%s: its certificate ends %s", s.name, until.UTC().Format("2006-01-02 15:04 UTC"))
		}
		if skew := s.skew.Abs(); skew > someSkew && skew <= maxSkew {
			say(rotation.Warning, "set the clocks; expiries are kept by the server's", "%s: its clock is %s away from ours", s.name, s.skew.Round(time.Second))
		}
	}
	return found, c.everywhere("examining")
}

// transport says how a connection is protected, and until when the certificates
// that the server showed are valid.
func transport(s *server) (what string, until time.Time, ok bool) {
	conn, is := s.conn.PgConn().Conn().(interface{ ConnectionState() tls.ConnectionState })
	if !is {
		return "without TLS", time.Time{}, false
	}
	state := conn.ConnectionState()
	for _, cert := range state.PeerCertificates {
		if !ok || cert.NotAfter.Before(until) {
			until, ok = cert.NotAfter, true
		}
	}
	return tls.VersionName(state.Version), until, ok
}
