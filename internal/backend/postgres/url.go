package postgres

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// An address is what a URL of ours says: a user or none, hosts, a database.
type address struct {
	user     string
	hosts    []string // host:port
	database string
	password string // only where material is read
}

// urlProblem is what is wrong with a URL; its text never repeats the URL,
// which may hold a password.
type urlProblem struct{ text, tip string }

// parseURL reads postgres://[user@]host[:port][,host[:port]…]/database. It
// refuses a password and every parameter but sslmode=verify-full.
func parseURL(raw string) (address, *urlProblem) {
	a, query, problem := splitURL(raw)
	if problem != nil {
		return address{}, problem
	}
	if a.password != "" {
		return address{}, &urlProblem{"the URL holds a password", "take it out; a password comes from admin-password"}
	}
	for key, values := range query {
		switch {
		case key == "sslmode" && strings.Join(values, "") == "verify-full":
		case key == "sslmode":
			return address{}, &urlProblem{"sslmode in the URL weakens the connection", "take it out; weaker TLS is asked for by insecure-tls"}
		default:
			return address{}, &urlProblem{"the URL has a parameter", "take it out; parameters in the URL are not taken"}
		}
	}
	return a, nil
}

// splitURL takes a URL apart without judging password and parameters.
// net/url is not asked for the whole: its errors repeat what they refuse.
func splitURL(raw string) (address, url.Values, *urlProblem) {
	bad := func(text string) (address, url.Values, *urlProblem) {
		return address{}, nil, &urlProblem{text, "write postgres://user@host:5432/database"}
	}
	rest, ok := strings.CutPrefix(raw, "postgres://")
	if !ok {
		if rest, ok = strings.CutPrefix(raw, "postgresql://"); !ok {
			return bad("the URL does not begin with postgres://")
		}
	}
	rest, params, _ := strings.Cut(rest, "?")
	query, err := url.ParseQuery(params)
	if err != nil {
		return bad("the URL's parameters are malformed")
	}
	authority, path, _ := strings.Cut(rest, "/")
	var a address
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		user, password, _ := strings.Cut(authority[:i], ":")
		if a.user, err = url.PathUnescape(user); err != nil {
			return bad("the URL's user is malformed")
		}
		if a.password, err = url.PathUnescape(password); err != nil {
			return bad("the URL's password is malformed")
		}
		authority = authority[i+1:]
	}
	for part := range strings.SplitSeq(authority, ",") {
		hp, ok := hostPort(part)
		if !ok {
			return bad("the URL names no host, or a malformed one")
		}
		a.hosts = append(a.hosts, hp)
	}
	if a.database, err = url.PathUnescape(path); err != nil || a.database == "" || strings.Contains(a.database, "/") {
		return bad("the URL names no database")
	}
	return a, query, nil
}

// hostPort returns "host:port" with the default port filled in.
func hostPort(s string) (string, bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "5432"
		if strings.Contains(host, ":") && !strings.HasPrefix(s, "[") {
			return "", false
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", false
	}
	if host == "" || strings.ContainsAny(host, " /\\@%") {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

// endpointURL returns the URL of one host, without user and password.
func endpointURL(hostport, database string) string {
	return "postgres://" + hostport + "/" + url.PathEscape(database)
}
