package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// raceTries is how often "tuple concurrently updated" is met by looking and
// trying again: somebody else altered the same role in the same moment.
const raceTries = 5

// Arm lets the version's login in until the given time, by a verifier that is
// made here. A login that is armed for this version already gets the verifier
// anew; one that is armed for another, or has sessions left, is an error of
// class Refused, and so is a version that was ended before. It returns when
// every standby has replayed it.
func (b *Backend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, until time.Time) error {
	doing := fmt.Sprintf("arming login %q", v.Identity)
	made, err := Verifier(m["password"])
	if err != nil {
		return rotation.Classify(rotation.Invalid, "", fmt.Errorf("postgres: %s: %w", doing, err))
	}
	defer made.Wipe()
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := errors.Join(c.notItself(doing, v), c.everywhere(doing)); err != nil {
		return err
	}
	b.silence(ctx, c.primary)
	call := "select " + b.function("arm") + "($1::text, $2::text, $3::timestamptz, $4::text, $5::int)"
	err = b.retried(ctx, func() error {
		_, err := c.primary.conn.Exec(ctx, call, v.Identity, string(made.Reveal()), timestamp(until), v.Credential, v.Number)
		return wrap(c.primary.name, err)
	})
	if err != nil {
		return joined(doing, []error{err})
	}
	st, err := b.state(ctx, c.primary, v.Identity)
	if err != nil {
		return joined("reading back "+doing, []error{err})
	}
	if !st.CanLogin || !st.Holder.is(v) {
		return rotation.Errorf(rotation.Failed, "", "postgres: %s: it reads back as armed for %s", doing, st.Holder)
	}
	return b.replayed(ctx, c, st)
}

// Expire sets the end of the version's validity; the zero time lifts it. It
// reads back what it set, on every host.
func (b *Backend) Expire(ctx context.Context, v rotation.Version, until time.Time) error {
	doing := fmt.Sprintf("setting the expiry of login %q", v.Identity)
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.notItself(doing, v); err != nil {
		return err
	}
	call := "select " + b.function("expire") + "($1::text, $2::timestamptz, $3::text, $4::int)"
	err = b.retried(ctx, func() error {
		_, err := c.primary.conn.Exec(ctx, call, v.Identity, timestamp(until), v.Credential, v.Number)
		return wrap(c.primary.name, err)
	})
	if err != nil {
		return joined(doing, []error{err})
	}
	st, err := b.state(ctx, c.primary, v.Identity)
	if err != nil {
		return joined("reading back after "+doing, []error{err})
	}
	if want := until.Truncate(time.Microsecond); !st.until().Equal(want) {
		return rotation.Errorf(rotation.Failed, "", "postgres: %s: it reads back as %s", doing, st.Until)
	}
	if err := b.replayed(ctx, c, st); err != nil {
		return err
	}
	return c.everywhere(doing)
}

// timestamp returns what PostgreSQL reads as the time; nil for the zero time.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}

// retried runs do again while the server says that two altered one role at once.
func (b *Backend) retried(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if codeOf(err) != "XX000" || try == raceTries {
			return err
		}
		if pause(ctx, time.Duration(try)*50*time.Millisecond) != nil {
			return err
		}
	}
}

// silence switches off, for this connection, every kind of log that may hold a
// statement's parameters, as far as the administrator may. What it may not is
// no error: a verifier in the log lets nobody log in, and setup.sql keeps
// parameters of the administrator out of it from PostgreSQL 13 on. The session
// is silenced, not the transaction: some sampling is decided as one begins.
func (b *Backend) silence(ctx context.Context, s *server) {
	s.silenced = true
	for _, p := range [][2]string{
		{"log_statement", "none"}, {"log_min_duration_statement", "-1"}, {"log_min_duration_sample", "-1"},
		{"log_transaction_sample_rate", "0"}, {"log_min_error_statement", "panic"}, {"log_parameter_max_length", "0"},
		{"log_parameter_max_length_on_error", "0"}, {"auto_explain.log_min_duration", "-1"}, {"pg_stat_statements.track", "none"},
		{"debug_print_parse", "off"}, {"debug_print_rewritten", "off"}, {"debug_print_plan", "off"},
	} {
		_, err := s.conn.Exec(ctx, "set "+pgx.Identifier(strings.Split(p[0], ".")).Sanitize()+" = '"+p[1]+"'")
		if code := codeOf(err); err != nil && code != "42501" && code != "42704" { // may not, or no such parameter yet
			b.options.Logger.WarnContext(ctx, "silencing the server's log", "parameter", p[0], "error", wrap(s.name, err))
		}
	}
}
