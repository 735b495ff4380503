// Package postgres rotates the login of an application in PostgreSQL 12 to 18
// without a moment in which no login works.
//
// A role of PostgreSQL has one verifier, so two passwords of one role are never
// valid at once. Therefore a credential has several logins that take turns:
// members of one role that has the rights, each with SET role to it, so that
// whoever logs in acts, owns and creates as that role. A version is one login
// with one password. To arm it is LOGIN, a SCRAM-SHA-256 verifier made here and
// VALID UNTIL; to end it is NOLOGIN, PASSWORD NULL and VALID UNTIL '-infinity',
// and then the end of its sessions, on every host.
//
// The login that an application used before becomes the role of the pair:
// version 1 is the role itself, nothing is moved, and it is ended in the same
// way. See [Backend.Adopt].
//
// The administrator is not a superuser and has no CREATEROLE. It may call a few
// SECURITY DEFINER functions, which know the logins that they may touch and
// which version holds each; [Setup] prints them as SQL.
//
// The clear password never goes to the server outside a SCRAM exchange.
package postgres
