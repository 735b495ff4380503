package postgres

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// passwordOf finds the password in the material and checks that it belongs to
// the identity: the field password, or a field that is made of others and holds
// user and password in a form that is known: a URL, JSON, key=value, a password
// file of libpq. The problem never repeats a value.
func passwordOf(identity string, m rotation.Material) (_ secret.Value, problem string) {
	if u, ok := m["username"]; ok && string(u.Reveal()) != identity {
		return secret.Value{}, "the user name that is mounted is not this version's login"
	}
	if p, ok := m["password"]; ok {
		return p, ""
	}
	problem = "no field holds a password that can be found: mount password, or a field that holds user and password as a URL, as JSON, as key=value or as a password file"
	for _, field := range m.Fields() {
		pairs := pairsIn(string(m[field].Reveal()))
		if i := slices.IndexFunc(pairs, func(p pair) bool { return p.user == identity }); i >= 0 {
			return secret.FromString(pairs[i].password), ""
		}
		if len(pairs) > 0 {
			problem = fmt.Sprintf("the field %q is not of this version's login", field)
		}
	}
	return secret.Value{}, problem
}

// A pair is a user and a password that stand together in a text.
type pair struct{ user, password string }

// pairsIn returns the pairs of a text, whatever its form.
func pairsIn(s string) []pair {
	s = strings.TrimSpace(s)
	var document any
	switch {
	case strings.HasPrefix(s, "{") && json.Unmarshal([]byte(s), &document) == nil:
		return inJSON(document)
	case scheme.MatchString(s):
		return inURL(s)
	case strings.Contains(s, "="):
		return matched(keywords(s))
	}
	return inPasswordFile(s)
}

func inURL(s string) []pair {
	_, rest, _ := strings.Cut(s, "://") // postgresql+asyncpg:// and the like
	a, query, problem := splitURL("postgres://" + rest)
	if problem != nil {
		return nil
	}
	if a.user == "" {
		a.user = query.Get("user")
	}
	if a.password == "" {
		a.password = query.Get("password")
	}
	return matched(map[string]string{"user": a.user, "password": a.password})
}

// inJSON looks into every object, and into texts that are URLs or key=value.
func inJSON(v any) []pair {
	var out []pair
	switch v := v.(type) {
	case string:
		return pairsIn(v)
	case []any:
		for _, item := range v {
			out = append(out, inJSON(item)...)
		}
	case map[string]any:
		words := map[string]string{}
		for key, item := range v {
			if text, ok := item.(string); ok {
				words[key] = text
			}
			out = append(out, inJSON(item)...)
		}
		out = append(out, matched(words)...)
	}
	return out
}

// matched pairs user (or username) with password, DB_USER with DB_PASSWORD: the
// keys that end so and begin alike, whatever their case.
func matched(words map[string]string) []pair {
	low := make(map[string]string, len(words))
	for key, value := range words {
		low[strings.ToLower(strings.TrimSpace(key))] = value
	}
	var out []pair
	for key, user := range low {
		stem, ok := strings.CutSuffix(key, "username")
		if !ok {
			stem, ok = strings.CutSuffix(key, "user")
		}
		if password := low[stem+"password"]; ok && user != "" && password != "" {
			out = append(out, pair{user, password})
		}
	}
	return out
}

var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

var semicolons = regexp.MustCompile(`;\s*[A-Za-z_ ]+=`)

// keywords reads key=value pairs that stand apart by spaces and lines, or by
// semicolons where these are followed by a key. A value in quotes holds spaces,
// and a backslash in it takes the next character as it is.
func keywords(s string) map[string]string {
	words := map[string]string{}
	ends := " \t\r\n"
	if semicolons.MatchString(s) {
		ends = ";\r\n"
	}
	for {
		key, rest, ok := strings.Cut(strings.TrimLeft(s, ends), "=")
		if !ok {
			return words
		}
		words[strings.TrimSpace(key)], s = word(strings.TrimLeft(rest, " \t"), ends)
	}
}

// word takes one value from the beginning of a text.
func word(s, ends string) (value, rest string) {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		if i := strings.IndexAny(s, ends); i >= 0 {
			return strings.TrimRight(s[:i], " \t"), s[i:]
		}
		return strings.TrimRight(s, " \t"), ""
	}
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return out.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String(), ""
}

// inPasswordFile reads lines of host:port:database:user:password, where a
// backslash takes the next character as it is.
func inPasswordFile(s string) []pair {
	var out []pair
	for line := range strings.Lines(s) {
		fields := []string{""}
		line = strings.TrimRight(line, "\r\n")
		for i := 0; i < len(line); i++ {
			switch {
			case line[i] == ':' && len(fields) < 5:
				fields = append(fields, "")
				continue
			case line[i] == '\\' && i+1 < len(line):
				i++
			}
			fields[len(fields)-1] += line[i : i+1]
		}
		if len(fields) == 5 && fields[3] != "" && fields[4] != "" {
			out = append(out, pair{fields[3], fields[4]})
		}
	}
	return out
}
