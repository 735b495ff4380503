package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Options are the seams of a [Backend]. The zero Options work.
type Options struct {
	Getenv func(string) string // where admin-password from-env is read; default os.Getenv
	Now    func() time.Time    // default time.Now
	Logger *slog.Logger        // what people should know and no result says; default: nowhere
	CA     []byte              // the content of the file that the settings name as ca, PEM

	// Ready, if it is not nil, is called before connections are made: what Dial
	// needs may take longer than a connection may.
	Ready func(ctx context.Context) error

	// Dial makes the connections; default: the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Emergency lets Identify take the login that is kept for emergencies, and
	// pass over logins that somebody else armed.
	Emergency bool

	// Settle is the time between two readings of no session that make a proof.
	// Default: one second.
	Settle time.Duration

	// Patience is how long to wait for standbys to replay, and for sessions to
	// end. Default: 30 seconds.
	Patience time.Duration
}

// A Backend rotates one credential in one PostgreSQL cluster. It keeps connections
// between calls while [Backend.Lock] is held, and else none.
type Backend struct {
	settings Settings
	options  Options
	admin    address
	kept     kept
}

// The interfaces that a Backend fulfils.
var (
	_ rotation.Backend     = (*Backend)(nil)
	_ rotation.Drafter     = (*Backend)(nil)
	_ rotation.Expirer     = (*Backend)(nil)
	_ rotation.Preflighter = (*Backend)(nil)
	_ rotation.Comparer    = (*Backend)(nil)
	_ rotation.Locker      = (*Backend)(nil)
	_ rotation.Adopter     = (*Backend)(nil)
	_ rotation.Warner      = (*Backend)(nil)
	_ rotation.Login       = Login
)

// New returns a Backend for settings that passed [Section]. It does no I/O.
func New(s Settings, o Options) (*Backend, error) {
	s = s.withDefaults()
	if err := s.check(); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("postgres: %w", err))
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Settle == 0 {
		o.Settle = time.Second
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if _, err := tlsConfig("", o.CA, s.InsecureTLS, s.Pins); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("postgres: ca %q: %w", s.CA, err))
	}
	admin, _ := parseURL(s.Admin)
	return &Backend{settings: s, options: o, admin: admin}, nil
}

// Identify picks a login that is disarmed, has no session on any host and is
// none of others. The last of three or more logins is left for emergencies.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	c, err := b.open(ctx)
	if err != nil {
		return next, err
	}
	defer c.close()
	if err := c.everywhere("looking for a free login"); err != nil {
		return next, err
	}
	candidates := b.settings.Logins
	if next.Identity != "" {
		candidates = []string{next.Identity}
	}
	var taken []string
	for _, login := range candidates {
		why, err := b.busy(ctx, c, login, next, others)
		if err != nil {
			return next, err
		}
		if why == "" {
			return b.identified(next, login), nil
		}
		taken = append(taken, fmt.Sprintf("%q %s", login, why))
	}
	hint := "cleanup ends the previous version and frees its login"
	if !b.options.Emergency && len(b.settings.Logins) > 2 {
		hint += "; in an emergency, revoke may take the last one"
	}
	return next, rotation.Errorf(rotation.Refused, hint, "postgres: no free login of %q: %s", b.settings.Role, strings.Join(taken, "; "))
}

// busy says why a login cannot be taken, or "". A version that the record does
// not know and that is not older than ours is an error: somebody else rotates.
func (b *Backend) busy(ctx context.Context, c *cluster, login string, next rotation.Version, others []rotation.Version) (string, error) {
	for _, o := range others {
		if o.Identity == login {
			return fmt.Sprintf("is version %d's", o.Number), nil
		}
	}
	if !slices.Contains(b.settings.Logins, login) {
		return "is none of the logins", nil
	}
	st, err := b.state(ctx, c.primary, login)
	if err != nil {
		return "", err
	}
	h := st.Holder
	switch {
	case !st.Exists:
		return "does not exist: run what `keyturn setup postgres` prints", nil
	case st.CanLogin && h.Credential == next.Credential && h.Version < next.Number:
		return fmt.Sprintf("is still armed for version %d, which is to be ended first", h.Version), nil
	case st.CanLogin && b.options.Emergency:
		return "is armed for " + h.String(), nil
	case st.CanLogin:
		return "", rotation.Errorf(rotation.Refused, "find out who armed it: \\du+ in psql shows its comment; disarm it if nobody uses it",
			"postgres: login %q is armed for %s, which is not on this record: somebody else rotates, or did", login, h)
	}
	if n := len(b.settings.Logins); n > 2 && login == b.settings.Logins[n-1] && !b.options.Emergency {
		return "is kept for emergencies", nil
	}
	sessions, err := b.everySession(ctx, c, login)
	if err != nil {
		return "", err
	}
	if len(sessions) > 0 {
		return fmt.Sprintf("has %d sessions left (%s)", len(sessions), sessions[0].use().Detail), nil
	}
	return "", nil
}

// identified fills in the identity and the public fields: the login, and where
// the first probe URL says that services reach the database.
func (b *Backend) identified(v rotation.Version, login string) rotation.Version {
	v = v.Clone()
	v.Identity = login
	host, port, database := b.place()
	v.Public = map[string]string{"username": login, "host": host, "port": port, "database": database}
	return v
}

// Draft returns a new password and the public fields beside it.
func (b *Backend) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("postgres: drafting a version that has no login yet")
	}
	host, port, database := b.place()
	return rotation.Material{
		"username": secret.FromString(v.Identity),
		"password": secret.Generate(),
		"host":     secret.FromString(host),
		"port":     secret.FromString(port),
		"database": secret.FromString(database),
	}, nil
}
