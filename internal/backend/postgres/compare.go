package postgres

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Compare checks that the logins of both versions act as the role and have
// nothing else: no attribute, no membership, no object or right of their own,
// and the same settings (per database too) and limits. Where the current
// version is the adopted role itself, the login has the role's settings beside
// its SET role. The error names every difference.
func (b *Backend) Compare(ctx context.Context, next, current rotation.Version) error {
	doing := fmt.Sprintf("comparing logins %q and %q", next.Identity, current.Identity)
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var states [2]state
	for i, v := range []rotation.Version{next, current} {
		if states[i], err = b.state(ctx, c.primary, v.Identity); err != nil {
			return joined(doing, []error{err})
		}
		if !states[i].Exists {
			return rotation.Errorf(rotation.Failed, "", "postgres: %s: there is no %q", doing, v.Identity)
		}
	}
	var found []string
	for _, st := range states {
		if st.Login != b.settings.Role {
			found = append(found, b.unlike(st)...)
		}
	}
	found = append(found, differences(b.settingsOf(states[0]), b.settingsOf(states[1]), next.Identity, current.Identity)...)
	if len(found) > 0 {
		return rotation.Errorf(rotation.Failed, "run what `keyturn setup postgres` prints again: it copies settings and limits; take away what a login has beyond its role",
			"postgres: %s: %s", doing, strings.Join(found, "; "))
	}
	return nil
}

// unlike names what keeps a login from being a mere door to the role.
func (b *Backend) unlike(st state) []string {
	var found []string
	say := func(format string, args ...any) {
		found = append(found, fmt.Sprintf("%s "+format, append([]any{st.Login}, args...)...))
	}
	if len(st.Attributes) > 0 {
		say("is %s", strings.Join(st.Attributes, ", "))
	}
	member := false
	for _, m := range st.Members {
		switch {
		case m.Role != b.settings.Role:
			say("is also a member of %q", m.Role)
		case m.Admin:
			say("has ADMIN on %q", m.Role)
		case !m.Inherit || !m.Set:
			say("is a member of %q without INHERIT or SET", m.Role)
		default:
			member = true
		}
	}
	if !member {
		say("is no member of %q", b.settings.Role)
	}
	if got, ok := settingOf(st.Config, "role"); !ok {
		say("has no SET role")
	} else if got != b.settings.Role {
		say("has SET role %q, not %q", got, b.settings.Role)
	}
	for database, config := range st.Databases {
		if got, ok := settingOf(config, "role"); ok && got != b.settings.Role {
			say("has SET role %q in database %q", got, database)
		}
	}
	if st.Owned > 0 {
		say("owns %d objects or rights of its own (pg_shdepend)", st.Owned)
	}
	return found
}

// settingsOf returns settings and limits as a flat map, without role.
func (b *Backend) settingsOf(st state) map[string]string {
	flat := map[string]string{"connection limit": strconv.Itoa(st.Limit)}
	add := func(prefix string, config []string) {
		for _, c := range config {
			key, value, _ := strings.Cut(c, "=")
			if key != "role" && key != "session_authorization" {
				flat[prefix+key] = value
			}
		}
	}
	add("", st.Config)
	for database, config := range st.Databases {
		add("in database "+database+": ", config)
	}
	return flat
}

func settingOf(config []string, key string) (string, bool) {
	for _, c := range config {
		if k, v, _ := strings.Cut(c, "="); k == key {
			return v, true
		}
	}
	return "", false
}

// harmless are the settings whose values are shown. Those of others are not: an
// application's own settings often hold keys and the like.
var harmless = regexp.MustCompile(`^(in database [^:]*: )?(connection limit|search_path|(maintenance_)?work_mem|temp_buffers|timezone|datestyle|` +
	`(statement|lock|transaction|idle_session|idle_in_transaction_session)_timeout|default_transaction_(isolation|read_only)|` +
	`synchronous_commit|client_encoding|client_min_messages|row_security|jit|log_statement)$`)

// differences names what two roles do not have in common, from both views.
func differences(a, b map[string]string, nameA, nameB string) []string {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		x, okA := a[k]
		y, okB := b[k]
		show := func(value string, set bool) string {
			switch {
			case !set:
				return "nothing"
			case harmless.MatchString(strings.ToLower(k)):
				return strconv.Quote(value)
			case okA && okB:
				return "a value of its own"
			}
			return "a value"
		}
		if okA != okB || x != y {
			out = append(out, fmt.Sprintf("%s: %s has %s, %s has %s", k, nameA, show(x, okA), nameB, show(y, okB)))
		}
	}
	return out
}
