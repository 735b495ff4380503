package rotation

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/secret"
)

var placeholder = regexp.MustCompile(`\{([a-z][a-z0-9_-]*)\}`)

// Render adds the fields that are made of others. A template names fields in
// braces; what stands for them is escaped for the format that the template has:
// JSON (it starts with "{{"; a text that holds "://" is a URL), a URL (it holds
// "://"), a libpq connection string (key=value pairs), or else plain text, which
// is not escaped.
func Render(m Material, templates map[string]string) error {
	left := make([]string, 0, len(templates))
	for field := range templates {
		left = append(left, field)
	}
	slices.Sort(left)
	for len(left) > 0 {
		var later []string
		for _, field := range left {
			if names := missing(m, templates[field], left); len(names) > 0 {
				later = append(later, field)
				continue
			}
			text, err := fill(m, templates[field])
			if err != nil {
				return fmt.Errorf("rendering field %q: %w", field, err)
			}
			m[field] = secret.FromString(text)
		}
		if len(later) == len(left) {
			return fmt.Errorf("rendering fields %s: they name one another", strings.Join(left, ", "))
		}
		left = later
	}
	return nil
}

// missing returns the placeholders that are rendered fields themselves and not made yet.
func missing(m Material, template string, left []string) []string {
	var names []string
	for _, match := range placeholder.FindAllStringSubmatch(template, -1) {
		if _, ok := m[match[1]]; !ok && slices.Contains(left, match[1]) {
			names = append(names, match[1])
		}
	}
	return names
}

// fill puts the fields into a template. What is written twice there, "{{" and
// "}}" of JSON, becomes one; a value is never touched after it was escaped.
func fill(m Material, template string) (string, error) {
	literal := func(s string) string { return s }
	if isJSON(template) {
		literal = strings.NewReplacer("{{", "{", "}}", "}").Replace
	}
	var out strings.Builder
	var unknown []string
	end := 0
	for _, at := range placeholder.FindAllStringSubmatchIndex(template, -1) {
		out.WriteString(literal(template[end:at[0]]))
		end = at[1]
		name := template[at[2]:at[3]]
		v, ok := m[name]
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		out.WriteString(escape(template, template[:at[0]], string(v.Reveal())))
	}
	if len(unknown) > 0 {
		return "", fmt.Errorf("no field is called %s; there are %s", strings.Join(unknown, ", "), strings.Join(m.Fields(), ", "))
	}
	out.WriteString(literal(template[end:]))
	return out.String(), nil
}

func isJSON(template string) bool { return strings.HasPrefix(strings.TrimSpace(template), "{{") }

var keyword = regexp.MustCompile(`^\s*[a-z_]+=`)

// escape returns a value as it is written in a template, behind the text that
// stands before it. A text of JSON that holds a URL is one itself.
func escape(template, before, value string) string {
	switch {
	case isJSON(template) && !strings.Contains(before[strings.LastIndexByte(before, '"')+1:], "://"):
		b, _ := json.Marshal(value) // a string always encodes
		return string(b[1 : len(b)-1])
	case strings.Contains(template, "://"):
		return strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	case keyword.MatchString(template):
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
	}
	return value
}
