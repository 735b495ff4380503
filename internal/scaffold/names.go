package scaffold

import (
	"path"
	"regexp"
	"strings"
)

var (
	passwordLike = regexp.MustCompile(`(?i)(^|[._-])(db|database|pg|postgres)?(password|passwd|pass|pwd|pw)$`)
	dsnLike      = regexp.MustCompile(`(?i)(^|[._-])(url|dsn|uri|conn|connection|connstr|connection_string)$`)
	userLike     = regexp.MustCompile(`(?i)(^|[._-])(db|database|pg|postgres)?(user|username|login)$`)
	databaseLike = regexp.MustCompile(`(?i)(^|[._-])(db|database|pg|postgres(ql)?|sql)`)

	numbered = regexp.MustCompile(`(?i)[._-]v?[0-9]+$`)
	versions = regexp.MustCompile(`_v[0-9]+$`)
	suffixes = regexp.MustCompile(`(?i)[._-]?(password|passwd|pass|pwd|pw|url|dsn|uri|conn|connection|connstr|connection_string|user|username|login)$`)
	other    = regexp.MustCompile(`[^a-z0-9]+`)
)

// fieldOf says what a mounted secret is taken for, by the names of the secret,
// of its place, and of the variables that hold its path; "" for no database's.
func fieldOf(s Service, m Mount) string {
	names := []string{numbered.ReplaceAllString(m.Secret, ""), strings.TrimSuffix(path.Base(m.Target), path.Ext(m.Target))}
	for name, value := range s.Env {
		if path.IsAbs(value) && path.Clean(value) == m.Target {
			names = append(names, strings.TrimSuffix(name, "_FILE"))
		}
	}
	database := false
	for _, n := range names {
		database = database || databaseLike.MatchString(n)
	}
	if !database {
		return ""
	}
	for _, like := range []struct {
		field string
		names *regexp.Regexp
	}{{Password, passwordLike}, {DSN, dsnLike}, {Username, userLike}} {
		for _, n := range names {
			if like.names.MatchString(n) {
				return like.field
			}
		}
	}
	return ""
}

// credentialName makes a credential's name of that of a secret: orders-db of
// orders_db_password.
func credentialName(stack, secret string) string {
	name := suffixes.ReplaceAllString(numbered.ReplaceAllString(secret, ""), "")
	name = strings.Trim(other.ReplaceAllString(strings.ToLower(name), "-"), "-")
	stack = strings.Trim(other.ReplaceAllString(strings.ToLower(stack), "-"), "-")
	switch {
	case name == "":
		name = strings.Trim(stack+"-db", "-")
	case stack != "" && name != stack && !strings.HasPrefix(name, stack+"-"):
		name = stack + "-" + name
	}
	if len(name) > 36 {
		name = strings.Trim(name[:36], "-")
	}
	return name
}

// baseName is what the names of the next versions' secrets begin with. A name
// that looks like a version's own would count as one.
func baseName(secret string) string {
	base := versions.ReplaceAllString(secret, "")
	if base != secret {
		base += "_keyturn"
	}
	if len(base) > 56 {
		base = strings.TrimRight(base[:56], "._-")
	}
	return base
}
