package config

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	placeholder = regexp.MustCompile(`\{([a-z][a-z0-9_-]*)\}`)
	keyword     = regexp.MustCompile(`^\s*[a-z_]+=`)
)

// names returns the fields that a template names.
func names(template string) []string {
	var out []string
	for _, m := range placeholder.FindAllStringSubmatch(template, -1) {
		out = append(out, m[1])
	}
	return out
}

// template checks a field that is made of others.
func (p *parser) template(n *yaml.Node, key, field, template string, f fields) {
	if !fieldName.MatchString(field) {
		p.fault(n, key, "write it as dsn", "a field's name has lower-case letters, digits, _ and -, the first a letter")
	}
	if slices.Contains(f.backend, field) {
		p.fault(n, key, "give it another name", "the backend gives a field of this name")
	}
	made := names(template)
	for _, name := range made {
		if name == field {
			p.fault(n, key, "", "the field is made of itself")
		} else {
			p.unknownField(n, key, name, f)
		}
	}
	const fieldHint = "a field is written {password}; JSON begins with {{ and ends with }}"
	isJSON := strings.HasPrefix(strings.TrimSpace(template), "{{")
	switch {
	case len(made) == 0 && strings.ContainsAny(template, "{}"):
		p.fault(n, key, fieldHint, "the braces do not name fields")
	case len(made) == 0:
		p.fault(n, key, "name the fields that it is made of: {username}, {password}", "the template names no field")
	case holdsSecret(template):
		p.fault(n, key, "write {password} in its place", "a secret is never written here")
	case isJSON && !validJSON(template, f):
		p.fault(n, key, `write it as {{"user": "{username}", "password": "{password}"}}, with each field in quotes`, "the template makes no JSON")
	case isJSON:
	case strings.ContainsAny(placeholder.ReplaceAllString(template, ""), "{}"):
		p.fault(n, key, fieldHint, "the braces do not name fields")
	case beside(template):
		p.fault(n, key, "make two fields, or JSON", "a field stands beside a URL, and would be escaped for it")
	case keyword.MatchString(template) && !strings.Contains(template, "://") && quotes.MatchString(template):
		p.fault(n, key, "write: user={username} password={password}", "a field of a libpq string is a whole value and gets its quotes by itself")
	}
}

// quotes finds a field that is not the whole value of a keyword.
var quotes = regexp.MustCompile(`[^=]\{[a-z][a-z0-9_-]*\}|\{[a-z][a-z0-9_-]*\}\S`)

// beside reports whether a template holds a URL and a field outside of it.
func beside(template string) bool {
	if !strings.Contains(template, "://") {
		return false
	}
	for word := range strings.FieldsSeq(template) {
		if url, field := strings.Index(word, "://"), placeholder.FindStringIndex(word); field != nil && (url < 0 || field[0] < url) {
			return true
		}
	}
	return false
}

// validJSON reports whether a template makes JSON: what is secret stands in
// quotes; what is public may be a number without them.
func validJSON(template string, f fields) bool {
	b := placeholder.ReplaceAllStringFunc(template, func(s string) string {
		if slices.Contains(f.public, s[1:len(s)-1]) {
			return "0"
		}
		return "x"
	})
	return json.Valid([]byte(strings.NewReplacer("{{", "{", "}}", "}").Replace(b)))
}

// A field stands as this in a template that is looked through; no configuration has it.
const mark = "\x00"

var (
	authority = regexp.MustCompile(`://([^/?#\s"']*)([^\s"']*)`)
	named     = regexp.MustCompile(`(?i)(?:password|passwd|passphrase|\bpass|_pass|pwd|secret|token|(?:api|access|secret|private)[-_]?key)["']?\s*[=:]\s*["']?([^&\s"',;{}]*)`)
	afterUser = regexp.MustCompile(`\{user(?:name)?\}:([^\s@]*)`)
)

// holdsSecret reports whether a template holds a password where a field
// belongs: in the user's part of a URL, after a name such as password, or after
// the field of the user's name.
func holdsSecret(template string) bool {
	for _, m := range afterUser.FindAllStringSubmatch(template, -1) {
		if m[1] != "" && !strings.HasPrefix(m[1], "{") {
			return true
		}
	}
	text := placeholder.ReplaceAllString(template, mark)
	for _, m := range authority.FindAllStringSubmatch(text, -1) {
		if i := strings.LastIndex(m[1], "@"); i >= 0 {
			if _, password, _ := strings.Cut(m[1][:i], ":"); literal(password) {
				return true
			}
		} else if strings.Contains(m[2], "@") && !hosts.MatchString(m[1]) {
			return true // the password itself holds a slash
		}
	}
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		if literal(m[1]) && !strings.HasPrefix(m[1], mark+"@") { // a user called token
			return true
		}
	}
	return false
}

// hosts is a list of hosts with ports.
var hosts = regexp.MustCompile(`^((\[[0-9a-fA-F:]*\]|[^:,\[\]]*)(:([0-9]+|` + mark + `))?,?)*$`)

// literal reports whether a text has anything but fields.
func literal(s string) bool { return strings.Trim(s, mark) != "" }

// cycles reports templates that are made of one another.
func (p *parser) cycles(templates map[string]string, n *yaml.Node, key string) {
	reported := map[string]bool{}
	for _, field := range sorted(templates) {
		ring := ring(templates, field, field, map[string]bool{})
		if len(ring) < 2 || reported[field] {
			continue
		}
		for _, name := range ring {
			reported[name] = true
		}
		p.fault(at(n, field), join(key, field), "make one of them of the backend's fields alone", "the fields %s are made of one another", strings.Join(ring, ", "))
	}
}

// ring returns the fields on a way from a field back to the first one, or nil.
func ring(templates map[string]string, from, first string, seen map[string]bool) []string {
	seen[from] = true
	for _, next := range names(templates[from]) {
		if next == first {
			return []string{from}
		}
		if seen[next] {
			continue
		}
		if rest := ring(templates, next, first, seen); rest != nil {
			return append([]string{from}, rest...)
		}
	}
	return nil
}
