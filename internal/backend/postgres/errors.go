package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/rotation"
)

// SQLSTATEs of our own functions, see setup.sql.
const (
	codeUnmanaged = "KT001" // not on the list of logins that Keyturn may touch
	codeVerifier  = "KT002" // not a SCRAM-SHA-256 verifier
	codeArmed     = "KT003" // accepted already, for somebody else
	codeSessions  = "KT004" // sessions are left
	codeForeign   = "KT005" // the login belongs to another version
	codeLive      = "KT006" // may still log in
	codeArgument  = "KT007"
	codeBurnt     = "KT008" // this version or a later one was ended there
	codeNobody    = "KT009" // may log in, and nobody knows for which version
	codeUnread    = "KT010" // the verifier that is replaced cannot be kept
	codeItself    = "KT011" // a login may not change itself
)

// A ServerError is an answer of PostgreSQL without what could hold a value:
// no detail, context, query or hint. It unwraps to such a [pgconn.PgError].
type ServerError struct {
	Host string
	pg   *pgconn.PgError
}

// Error returns the message and the SQLSTATE.
func (e *ServerError) Error() string {
	return e.Host + ": " + e.pg.Message + " (SQLSTATE " + e.pg.Code + ")"
}

// Unwrap returns the server's error, stripped.
func (e *ServerError) Unwrap() error { return e.pg }

// Code returns the SQLSTATE.
func (e *ServerError) Code() string { return e.pg.Code }

// valueLike finds what must not be repeated from a server's message.
var valueLike = regexp.MustCompile(`SCRAM-SHA-256\$\S*|(?i:password)\s+'[^']*'`)

// wrap returns what may be said of a driver's error, with a class: pgx puts
// whole configurations and arguments into its errors.
func wrap(host string, err error) error {
	if err == nil {
		return nil
	}
	if ours, ok := errors.AsType[*rotation.Error](err); ok { // of the way to the server
		return rotation.Errorf(ours.Class, ours.Hint, "%s: %w", host, ours)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		stripped := &pgconn.PgError{Severity: pe.Severity, Code: pe.Code,
			Message: valueLike.ReplaceAllString(pe.Message, "[redacted]")}
		return rotation.Classify(classOf(pe.Code), hintOf(pe.Code), &ServerError{Host: host, pg: stripped})
	}
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			return rotation.Errorf(rotation.Unknown, "", "%s: %w", host, cause)
		}
	}
	return rotation.Errorf(rotation.Unknown, transportHint(err), "%s: %s", host, transportText(err))
}

// A localError is a text of ours that holds no value.
type localError string

func (e localError) Error() string { return string(e) }

// transportText returns the text of the errors that are known to hold no value.
func transportText(err error) string {
	if e, ok := errors.AsType[localError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*pinError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok { // user and database are in its text, no password
		return strings.ReplaceAll(e.Unwrap().Error(), "\n", " ")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the server closed the connection"
	}
	if errors.Is(err, pgconn.ErrConnClosed) {
		return "the connection is closed"
	}
	return fmt.Sprintf("the driver failed with a %T", err)
}

func transportHint(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	if _, ok := errors.AsType[*pinError](err); ok {
		return pinHint
	}
	switch {
	case errors.As(err, &unknown):
		return "set ca to the authority that signs the server's certificate"
	case errors.As(err, &hostname):
		return "use a host name that the server's certificate holds"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "give the server a certificate that is valid now, or set our clock"
	case strings.Contains(err.Error(), "protocol version"):
		return "the server does not speak TLS 1.3; better it, or write insecure-tls: [tls-1.2]"
	case strings.Contains(err.Error(), "server refused TLS"):
		return "switch ssl on in the server, or write insecure-tls: [plaintext]"
	case isNoHost(err):
		return "does this machine know the name? A database that only the services' networks reach: through: swarm"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is the server running, at this host and port?"
	}
	return ""
}

// isNoHost reports whether a name could not be looked up here.
func isNoHost(err error) bool {
	_, ok := errors.AsType[*net.DNSError](err)
	return ok
}

// codeOf returns the SQLSTATE in err's chain, or "".
func codeOf(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// classOf says what an SQLSTATE means for the caller. What may pass by itself,
// and what may have been done or not, is Unknown.
func classOf(code string) rotation.Class {
	switch code {
	case codeUnmanaged, codeVerifier, codeArmed, codeSessions, codeForeign, codeLive, codeArgument, codeBurnt, codeNobody, codeUnread, codeItself:
		return rotation.Refused
	case "25006", "40001", "40P01", "55P03", "XX000":
		return rotation.Unknown
	}
	if len(code) == 5 {
		switch code[:2] {
		case "08", "53", "57", "58": // connection, resources, intervention, system
			return rotation.Unknown
		}
	}
	return rotation.Failed
}

func hintOf(code string) string {
	switch code {
	case codeUnmanaged, "3F000", "42883":
		return "run the SQL that `keyturn setup postgres` prints, as a superuser, in the administrator's database"
	case "42501":
		return "the administrator needs what `keyturn setup postgres` prints; see docs/backends/postgres.md"
	case codeArmed:
		return "look at its comment (\\du+ in psql): another rotation, or somebody, made it log in"
	case codeNobody:
		return "disarm it (ALTER ROLE … NOLOGIN PASSWORD NULL), or write the credential and the version that it is armed for into the table managed"
	case codeItself:
		return itselfHint
	case codeUnread:
		return "run the set-up as a superuser; where pg_authid stays closed (managed services), use logins that take turns: strategy: alternating"
	case codeSessions:
		return "sessions of an earlier version are left; cleanup ends them"
	case "28P01":
		return "the password of the administrator is refused"
	case "28000":
		return "look at pg_hba.conf and at whether the role may log in"
	case "3D000":
		return "name a database that is there in the administrator's URL"
	case "25006":
		return "name the primary in the administrator's URL"
	case "53300", "53400":
		return "the server is out of connections"
	}
	return ""
}
