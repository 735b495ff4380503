package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A state is what keyturn.state tells of a role on one host.
type state struct {
	Functions  int                 `json:"functions"` // the version of what told it
	Login      string              `json:"login"`
	Exists     bool                `json:"exists"`
	OID        int64               `json:"oid"`
	CanLogin   bool                `json:"canlogin"`
	Until      string              `json:"until"` // "infinity", "-infinity" or a time
	Expired    bool                `json:"expired"`
	Password   *bool               `json:"password"` // nil: not visible here
	Scheme     string              `json:"scheme"`   // of the password: "scram", "md5"; "" where not visible
	Attributes []string            `json:"attributes"`
	Limit      int                 `json:"limit"`
	Config     []string            `json:"config"`
	Databases  map[string][]string `json:"databases"` // settings per database
	Members    []membership        `json:"members"`   // of which roles it is a member
	Owned      int                 `json:"owned"`     // objects and rights of its own, in any database
	Holder     holder              `json:"holder"`

	Single   bool   `json:"single"`   // its password is changed, and the rest is of that
	Versions []held `json:"versions"` // by credential and number
	Turns    []turn `json:"turns"`    // in their order
}

// A held is a version of a single login.
type held struct {
	holder
	Active bool  `json:"active"`
	Same   *bool `json:"same"` // the login's password is this version's; nil: not visible here
}

// A turn says from when on a version's password was the login's: not before it
// began; for sure, on every host, since then (the zero time: not yet).
type turn struct {
	Credential string    `json:"credential"`
	Version    int       `json:"version"`
	Began      time.Time `json:"began"`
	Since      time.Time `json:"since"`
}

type membership struct {
	Role    string `json:"role"`
	Admin   bool   `json:"admin"`
	Inherit bool   `json:"inherit"`
	Set     bool   `json:"set"`
}

// A holder is the version that a login was armed for last, as the table of
// logins says. Of an adopted login it is the version that was ended there. The
// zero holder is nobody.
type holder struct {
	Credential string `json:"credential"`
	Version    int    `json:"version"`
	Ended      bool   `json:"ended"`
}

func (h holder) is(v rotation.Version) bool {
	return h.Credential == v.Credential && h.Version == v.Number
}

func (h holder) String() string {
	if h.Credential == "" {
		return "nobody that Keyturn knows"
	}
	return fmt.Sprintf("version %d of %q", h.Version, h.Credential)
}

// disarmed reports whether the role is disarmed all three ways. A password
// that cannot be seen (on managed services) counts as gone if both others hold.
func (s state) disarmed() bool {
	return s.Exists && !s.CanLogin && s.Until == "-infinity" && (s.Password == nil || !*s.Password)
}

// until returns the end of validity; the zero time for none.
func (s state) until() time.Time {
	t, err := time.Parse(time.RFC3339Nano, s.Until)
	if err != nil {
		return time.Time{}
	}
	return t
}

// same reports whether two hosts say the same of what arming and ending change.
func (s state) same(o state) bool {
	return s.Exists == o.Exists && s.CanLogin == o.CanLogin && s.Until == o.Until && s.Holder == o.Holder &&
		(s.Password == nil || o.Password == nil || *s.Password == *o.Password) && slices.EqualFunc(s.Versions, o.Versions, held.like)
}

func (h held) like(o held) bool {
	return h.holder == o.holder && h.Active == o.Active && (h.Same == nil || o.Same == nil || *h.Same == *o.Same)
}

// state asks one host for one role.
func (b *Backend) state(ctx context.Context, s *server, login string) (state, error) {
	var raw []byte
	var st state
	if err := s.conn.QueryRow(ctx, "select "+b.function("state")+"($1::text)::text", login).Scan(&raw); err != nil {
		return st, wrap(s.name, err)
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, fmt.Errorf("%s: reading the state of %q: %w", s.name, login, err)
	}
	return st, b.sameFunctions(s, max(st.Functions, 1)) // version 1 did not say
}

// A session is a backend process that logged in as a login.
type session struct {
	server      string
	PID         int
	Application string
	Client      string
	Database    string
	Since       time.Time
}

func (s session) use() rotation.Use {
	name := s.Application
	if name == "" {
		name = s.Client
	}
	return rotation.Use{Kind: "session", Name: name, Detail: fmt.Sprintf("pid %d on %s, database %q, from %s, since %s",
		s.PID, s.server, s.Database, s.Client, s.Since.UTC().Format(time.RFC3339))}
}

// sessions lists the sessions of a login on one host.
func (b *Backend) sessions(ctx context.Context, s *server, login string) ([]session, error) {
	rows, err := s.conn.Query(ctx, `select pid, coalesce(application, ''), coalesce(client, 'local'),
		coalesce(database, ''), coalesce(since, pg_catalog.now()) from `+b.function("sessions")+"($1::text)", login)
	if err != nil {
		return nil, wrap(s.name, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (session, error) {
		x := session{server: s.name}
		return x, row.Scan(&x.PID, &x.Application, &x.Client, &x.Database, &x.Since)
	})
	return list, wrap(s.name, err)
}

// everySession lists the sessions of a login on every host that answered.
func (b *Backend) everySession(ctx context.Context, c *cluster, login string) ([]session, error) {
	var all []session
	for _, s := range c.servers {
		list, err := b.sessions(ctx, s, login)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// function returns the quoted name of one of our functions.
func (b *Backend) function(name string) string {
	return pgx.Identifier{b.settings.Schema, name}.Sanitize()
}

// replayed waits until every standby says of the login what the primary says.
func (b *Backend) replayed(ctx context.Context, c *cluster, want state) error {
	deadline := time.Now().Add(b.options.Patience)
	for _, s := range c.servers {
		for s.standby {
			got, err := b.state(ctx, s, want.Login)
			if err != nil {
				return err
			}
			if got.same(want) {
				break
			}
			if time.Now().After(deadline) {
				return rotation.Errorf(rotation.Unknown, "look at the standby's replication",
					"postgres: standby %s has not replayed the change of %q", s.name, want.Login)
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return wrap(s.name, err)
			}
		}
	}
	return nil
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
