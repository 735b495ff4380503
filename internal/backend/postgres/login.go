package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// probeTimeout bounds the trial of one endpoint.
const probeTimeout = 8 * time.Second

// codeRights stands for a login that works as somebody else than it should.
const codeRights = "rights"

// probeSettings travel in [rotation.ProbeSpec.Settings].
type probeSettings struct {
	Role        string   `json:"role"` // what current_user must be
	InsecureTLS []string `json:"insecure_tls,omitempty"`
	Pins        Pins     `json:"pins,omitzero"`
	Direct      []string `json:"direct,omitempty"` // hosts without a pooler between: channel binding is required
}

// Login logs in at every endpoint at once, as a service would: SCRAM-SHA-256 and nothing
// else, TLS 1.3 verified in full unless the spec weakens it. It then looks at
// who it is and runs an empty transaction.
//
// Only 28P01 is Dead, and what a pooler says in its place (see pooled). 28000 is
// Unfit: a missing line in pg_hba.conf says it as well as NOLOGIN does, and
// there it even says that the password was right. A wrong current_user or a
// refused database is Unfit too. Anything else that is not success is Inconclusive.
//
// The material holds the field password, or a field in which the login and its
// password can be found, see passwordOf.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var settings probeSettings
	if len(spec.Settings) > 0 {
		if err := json.Unmarshal(spec.Settings, &settings); err != nil {
			return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
		}
	}
	password, problem := passwordOf(spec.Identity, m)
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		if problem != "" {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		}
		return try(ctx, spec, settings, endpoint, password)
	})
}

// try logs in at one endpoint.
func try(ctx context.Context, spec rotation.ProbeSpec, settings probeSettings, endpoint string, password secret.Value) rotation.EndpointResult {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r := rotation.EndpointResult{Answer: rotation.Inconclusive}
	a, problem := parseURL(endpoint)
	if problem != nil || len(a.hosts) != 1 {
		r.Reason = "the endpoint is no URL of one host"
		return r
	}
	direct := slices.Contains(settings.Direct, a.hosts[0])
	binding := "prefer" // a pooler that ends TLS cannot do it
	if direct {
		binding = "require"
	}
	conn, err := line{hostport: a.hosts[0], user: spec.Identity, database: a.database, password: password, ca: spec.CA,
		weaker: settings.InsecureTLS, pins: settings.Pins, binding: binding, params: map[string]string{"application_name": "keyturn-probe"}}.connect(ctx)
	if err != nil {
		return refusal(r, a.hosts[0], direct, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the answer is known already
	}()
	reason, err := fit(ctx, conn, spec.Identity, settings.Role)
	switch {
	case err != nil:
		r.Code, r.Reason = codeOf(err), wrap(a.hosts[0], err).Error()
	case reason != "":
		r.Answer, r.Code, r.Reason = rotation.Unfit, codeRights, a.hosts[0]+": "+reason
	default:
		r.Answer = rotation.Alive
	}
	return r
}

// pooled holds the words by which PgBouncer refuses a login. It has one SQLSTATE
// for everything, 08P01, so that the words alone can be told from "server login
// failed" or "bouncer config error", which say nothing of the password.
var pooled = []string{"SASL authentication failed", "password authentication failed", "no such user"}

// refusal judges an attempt that did not get in.
func refusal(r rotation.EndpointResult, host string, direct bool, err error) rotation.EndpointResult {
	r.Code, r.Reason = codeOf(err), wrap(host, err).Error()
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if text := err.Error(); strings.Contains(text, "require_auth") || strings.Contains(text, "channel binding") {
			r.Reason += " (the server must ask for SCRAM-SHA-256: look at pg_hba.conf)"
		}
		return r
	}
	switch pe.Code {
	case "28P01":
		r.Answer = rotation.Dead
	case "08P01":
		if !direct && slices.Contains(pooled, pe.Message) {
			r.Answer = rotation.Dead
		}
	case "28000": // NOLOGIN with the right password, or pg_hba.conf: refused, and no proof of death
		r.Answer = rotation.Unfit
		r.Reason += " (NOLOGIN, or a line missing in pg_hba.conf; no proof that the password is dead)"
		if line := lineFor(pe.Message); line != "" {
			r.Reason += "; that server's pg_hba.conf needs a line such as: " + line
		}
	case "42501": // no CONNECT on the database, or no LOGIN right there: the password was accepted
		r.Answer = rotation.Unfit
	}
	return r
}

// noLine is how a server says that no line of its pg_hba.conf fits: who came from
// where, to which database, and how.
var noLine = regexp.MustCompile(`^no pg_hba\.conf entry for host "([0-9a-fA-F.:]+)", user "([A-Za-z0-9_.-]+)", database "([A-Za-z0-9_.-]+)", (SSL encryption|no encryption)`)

// lineFor returns the line that lets in who was refused for the lack of one, or "".
func lineFor(message string) string {
	m := noLine.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	from, err := netip.ParseAddr(m[1])
	if err != nil {
		return ""
	}
	kind := "hostssl"
	if m[4] == "no encryption" {
		kind = "hostnossl"
	}
	return fmt.Sprintf("%s %s %s %s/%d scram-sha-256", kind, m[3], m[2], from, from.BitLen())
}

// fit says in what the session is not what a service needs, or "". Who is logged
// in and who it acts as are both looked at: either's power is the service's.
func fit(ctx context.Context, conn *pgx.Conn, identity, role string) (string, error) {
	var session, current string
	var powers []string
	err := conn.QueryRow(ctx, `select session_user::text, current_user::text, (select pg_catalog.array_agg(r.rolname || ' is ' || a.name)
		from pg_catalog.pg_roles r, lateral (values ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole),
		('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) a (name, has)
		where a.has and r.rolname in (session_user, current_user))`).Scan(&session, &current, &powers)
	if err != nil {
		return "", err
	}
	switch {
	case session != identity:
		return fmt.Sprintf("it is logged in as %q, not as %q", session, identity), nil
	case role != "" && current != role:
		return fmt.Sprintf("it acts as %q, not as %q: the membership or the SET role is missing", current, role), nil
	case len(powers) > 0:
		return strings.Join(powers, ", "), nil
	}
	for _, statement := range []string{"begin", "select 1", "rollback"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	return "", nil
}
