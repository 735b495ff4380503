package postgres

import (
	"embed"
	"strings"

	"github.com/jackc/pgx/v5"
)

// functionsVersion is what keyturn.version() must return: the version of the
// functions that this program was written for.
const functionsVersion = 3

//go:embed setup.sql functions.sql
var setupSQL embed.FS

// silenced are the parameters that the administrator may set, so that no
// verifier is in the server's log whatever is logged there.
var silenced = []string{"log_statement", "log_min_duration_statement", "log_min_duration_sample", "log_min_error_statement",
	"log_transaction_sample_rate", "log_parameter_max_length", "auto_explain.log_min_duration", "pg_stat_statements.track"}

// SetupInfo is what [Setup] says beside the settings.
type SetupInfo struct {
	Credential string // the name of the credential, for a comment; may be empty
}

// Setup returns the SQL that a superuser reviews and runs once in the
// administrator's database: roles, settings, functions, rights. It may be run
// again at any time, is one transaction, and holds no password. The settings
// must have passed [Section].
func Setup(s Settings, info SetupInfo) string {
	s = s.withDefaults()
	admin, _ := parseURL(s.Admin)
	texts := map[string]string{}
	for _, name := range []string{"setup.sql", "functions.sql"} {
		text, _ := setupSQL.ReadFile(name)
		texts[name] = string(text)
	}
	t, err := parseTemplates(texts, map[string]func(any) any{
		"ident": func(v any) any { return pgx.Identifier{v.(string)}.Sanitize() },
		"lit":   func(v any) any { return literal(v.(string)) },
		"not":   func(v any) any { return v == false },
		"array": func(v any) any {
			var quoted []string
			for _, name := range v.([]string) {
				quoted = append(quoted, literal(name))
			}
			return "ARRAY[" + strings.Join(quoted, ", ") + "]::text[]"
		},
	})
	var out string
	if err == nil {
		out, err = t.execute("setup.sql", map[string]any{
			"Role": s.Role, "Logins": s.Logins, "Schema": s.Schema, "Owner": s.owner(), "Credential": info.Credential, "Single": s.single(), "CreateRole": s.Rights == byCreateRole,
			"Security": map[string]string{byFunctions: "SECURITY DEFINER", byCreateRole: "SECURITY INVOKER"}[s.Rights],
			"Admin":    admin.user, "Database": admin.database, "Version": functionsVersion,
			"Managed": pgx.Identifier{s.Schema, "managed"}.Sanitize(), "SetRole": "role=" + s.Role, "Silenced": strings.Join(silenced, ", "),
		})
	}
	if err != nil { // only a broken template, which every test would show
		panic("postgres: setup.sql: " + err.Error())
	}
	return out
}

// literal quotes a string as SQL, whatever standard_conforming_strings says.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
