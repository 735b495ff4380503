package cli_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/config"
)

// A value in the wrong place may be a secret, so no fault of a backend's own
// section repeats one, whatever it is and wherever it stands. Keys are shown,
// so it is planted in place of values alone.
func TestNoFaultOfASectionHoldsAValue(t *testing.T) {
	const planted = "Xk7canary9"
	section := map[string]string{
		"admin":          "postgres://keyturn@db:5432/orders",
		"admin-password": "{from-env: KEYTURN_PG_PASSWORD}",
		"ca":             "deploy/db-ca.pem",
		"role":           "orders",
		"logins":         "[orders_x, orders_y]",
		"probe":          `["postgres://pooler:6432/orders"]`,
		"schema":         "keyturn",
		"insecure-tls":   "[tls-1.2]",
		"pins":           "{current: sha256/" + strings.Repeat("A", 43) + "=}",
		"allow-changed":  "[session-user]",
	}
	disguises := []string{planted, `"` + planted + `!"`, `"` + planted + ` x"`, `"` + planted + `:x"`, "[" + planted + "]", `["` + planted + `:x", ` + planted + `]`,
		"postgres://keyturn:" + planted + "@db/orders", "[postgres://keyturn:" + planted + "@db/orders]", "postgres://" + planted + "@db/or ders",
		`"postgres://keyturn@` + planted + `:port/orders"`, "postgres://keyturn@db/orders?sslpassword=" + planted, `"postgres://keyturn@db/` + planted + `%zz"`,
		planted + "://keyturn@db/orders", "{from-env: " + planted + "}", "{password: " + planted + "}", "[orders_x, orders_x, " + planted + "]", `"` + planted + `\e[31m"`}
	refused := 0
	for _, key := range sortedNames(section) {
		for _, disguise := range disguises {
			text := "version: 1\ncredentials:\n  orders-db:\n    services: {api: {file: {PASSWORD_FILE: password}}}\n    postgres:\n"
			for _, k := range sortedNames(section) {
				value := section[k]
				if k == key {
					value = disguise
				}
				text += "      " + k + ": " + value + "\n"
			}
			_, err := config.Parse("f.yml", []byte(text), map[string]config.Section{"postgres": postgres.Section})
			if err == nil {
				continue
			}
			refused++
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(planted)) {
				t.Errorf("%s: %s\nis told by:\n%v", key, disguise, err)
			}
		}
	}
	if refused < 80 {
		t.Errorf("%d planted values were refused, want at least 80", refused)
	}
}

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
