package postgres

import (
	"embed"
	"strings"
	"text/template"

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
	t := template.Must(template.New("setup.sql").Funcs(template.FuncMap{
		"ident": func(n string) string { return pgx.Identifier{n}.Sanitize() },
		"lit":   literal,
		"array": func(names []string) string {
			quoted := make([]string, len(names))
			for i, n := range names {
				quoted[i] = literal(n)
			}
			return "ARRAY[" + strings.Join(quoted, ", ") + "]::text[]"
		},
	}).ParseFS(setupSQL, "*.sql"))
	var out strings.Builder
	err := t.Execute(&out, map[string]any{
		"Role": s.Role, "Logins": s.Logins, "Schema": s.Schema, "Owner": s.owner(), "Credential": info.Credential, "Single": s.single(), "CreateRole": s.Rights == byCreateRole,
		"Security": map[string]string{byFunctions: "SECURITY DEFINER", byCreateRole: "SECURITY INVOKER"}[s.Rights],
		"Admin":    admin.user, "Database": admin.database, "Version": functionsVersion,
		"Managed": pgx.Identifier{s.Schema, "managed"}.Sanitize(), "SetRole": "role=" + s.Role, "Silenced": strings.Join(silenced, ", "),
	})
	if err != nil { // only a broken template, which every test would show
		panic("postgres: setup.sql: " + err.Error())
	}
	return out.String()
}

// literal quotes a string as SQL, whatever standard_conforming_strings says.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
