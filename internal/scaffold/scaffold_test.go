package scaffold_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/scaffold"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// env makes variables of "NAME=value".
func env(entries ...string) map[string]string {
	out := map[string]string{}
	for _, e := range entries {
		name, value, _ := strings.Cut(e, "=")
		out[name] = value
	}
	return out
}

var cases = []struct {
	name     string
	services []scaffold.Service
	named    []string
	options  scaffold.Options
}{
	{name: "one-password", named: []string{"orders_api"}, options: scaffold.Options{StackFile: "deploy/orders.yml", CA: "deploy/db-ca.pem", Image: "registry.acme.io/keyturn:1"},
		services: []scaffold.Service{
			{Name: "orders_api", Stack: "orders", Env: env("POSTGRES_HOST=db", "POSTGRES_USER=orders", "POSTGRES_DB=orders", "POSTGRES_PASSWORD_FILE=/run/secrets/db_password", "SMTP_PASSWORD=canary"),
				Mounts: []scaffold.Mount{{"orders_db_password", "/run/secrets/db_password"}}},
			{Name: "orders_nightly", Stack: "orders", Env: env("PGUSER=orders"), Mounts: []scaffold.Mount{{"orders_db_password", "/etc/db/password"}}},
			{Name: "other_api", Stack: "other", Mounts: []scaffold.Mount{{"other_db_password", "/run/secrets/db_password"}}},
		}},
	{name: "a-prefix-of-its-own-and-a-dsn", named: []string{"orders_api", "orders_worker"},
		services: []scaffold.Service{
			{Name: "orders_api", Stack: "orders", Env: env("ORDERS_DB_PASSWORD_FILE=/run/secrets/pw", "ORDERS_DB_USER=orders", "ORDERS_DB_HOST=db.acme.io", "ORDERS_DB_PORT=6432", "ORDERS_DB_NAME=shop", "POSTGRES_HOST=elsewhere"),
				Mounts: []scaffold.Mount{{"orders_db_password_v3", "/run/secrets/pw"}, {"orders_tls_key", "/run/secrets/tls.key"}}},
			{Name: "orders_worker", Stack: "orders", Mounts: []scaffold.Mount{{"orders_db_url", "/run/secrets/db_url"}}},
		}},
	{name: "two-databases", named: []string{"shop_web"}, options: scaffold.Options{Admin: "postgres://keyturn@db1:5432,db2:5432/shop"},
		services: []scaffold.Service{{Name: "shop_web", Stack: "shop",
			Env:    env("USERS_DB_PASSWORD_FILE=/run/secrets/users", "USERS_DB_USER=users", "ITEMS_DB_PASSWORD_FILE=/run/secrets/items", "ITEMS_DB_USER=items"),
			Mounts: []scaffold.Mount{{"users_db_password", "/run/secrets/users"}, {"items_db_password", "/run/secrets/items"}}}}},
	{name: "a-login-that-is-a-secret", named: []string{"api"}, options: scaffold.Options{Role: "orders"},
		services: []scaffold.Service{{Name: "api", Env: env("PGHOST=db", "PGDATABASE=orders", "PGPASSFILE=/run/secrets/db_pass", "PGUSER_FILE=/run/secrets/db_user"),
			Mounts: []scaffold.Mount{{"db_pass", "/run/secrets/db_pass"}, {"db_user", "/run/secrets/db_user"}}}}},
	{name: "no-login-in-a-variable", named: []string{"api"}, options: scaffold.Options{Role: "orders"},
		services: []scaffold.Service{{Name: "api", Env: env("DB_HOST=db", "DB_NAME=orders", "DB_PASSWORD_FILE=/run/secrets/db_password"),
			Mounts: []scaffold.Mount{{"db_password", "/run/secrets/db_password"}}}}},
	{name: "services-of-two-stacks", named: []string{"orders_api"}, options: scaffold.Options{StackFile: "deploy/orders.yml"},
		services: []scaffold.Service{
			{Name: "orders_api", Stack: "orders", Env: env("DB_HOST=db", "DB_NAME=orders", "DB_USER=orders", "DB_PASSWORD_FILE=/run/secrets/pw"),
				Mounts: []scaffold.Mount{{"shared_db_password", "/run/secrets/pw"}}},
			{Name: "reports_web", Stack: "reports", Env: env("PGUSER=orders"), Mounts: []scaffold.Mount{{"shared_db_password", "/run/secrets/shared_db_password"}}},
		}},
	{name: "values-that-are-none", named: []string{"api"},
		services: []scaffold.Service{{Name: "api", Env: env("DB_HOST=canary of a secret!", "DB_USER=canary:x@y", "DB_NAME=orders", "DB_PASSWORD_FILE=/run/secrets/db_password"),
			Mounts: []scaffold.Mount{{"db_password", "/run/secrets/db_password"}}}}},
}

// TestWrite writes a configuration for every case; what it is like stands in
// testdata. Whether keyturn takes it is tried with its own parser, in cli.
func TestWrite(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.options
			o.Journal, o.Swarm = "/var/lib/keyturn/journal.jsonl", []string{"host: unix:///var/run/docker.sock"}
			found, others := scaffold.Guess(tt.services, tt.named)
			d := scaffold.Write(found, others, o)
			got := d.Text
			for _, u := range d.Unknown {
				got += "not known: " + u + "\n"
			}
			for _, m := range d.Missing {
				got += "missing: " + m + "\n"
			}
			var meaning map[string]any
			if err := yaml.Unmarshal([]byte(d.Text), &meaning); err != nil {
				t.Errorf("it is not YAML: %v", err)
			}
			if strings.Contains(got, "canary") {
				t.Errorf("a value is repeated:\n%s", got)
			}
			golden := filepath.Join("testdata", tt.name+".txt")
			if *update {
				check(t, os.MkdirAll("testdata", 0o755))
				check(t, os.WriteFile(golden, []byte(got), 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			check(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// TestNames tells the secrets of databases from others, by names alone.
func TestNames(t *testing.T) {
	for _, tt := range []struct {
		secret, target string
		variable       string
		want           string // field of credential
	}{
		{"orders_db_password", "/run/secrets/x", "", "password of orders-db"},
		{"orders_db_password_v7", "/run/secrets/x", "", "password of orders-db"},
		{"db-password-2024", "/run/secrets/x", "", "password of orders-db"},
		{"orders-pg-pass", "/run/secrets/x", "", "password of orders-pg"},
		{"pgpassword", "/run/secrets/x", "", "password of orders-pg"},
		{"s1", "/run/secrets/s1", "DATABASE_URL_FILE", "dsn of orders-s1"},
		{"s1", "/run/secrets/db_dsn", "", "dsn of orders-s1"},
		{"S3_Db_User", "/run/secrets/u", "", "username of orders-s3-db"},
		{"smtp_password", "/run/secrets/smtp_password", "SMTP_PASSWORD_FILE", "none"},
		{"db_tls_key", "/run/secrets/tls.key", "", "none"},
		{strings.Repeat("a", 50) + "_db_password", "/run/secrets/x", "", "password of orders-" + strings.Repeat("a", 29)},
	} {
		s := scaffold.Service{Name: "orders_api", Stack: "orders", Mounts: []scaffold.Mount{{tt.secret, tt.target}}}
		if tt.variable != "" {
			s.Env = env(tt.variable + "=" + tt.target)
		}
		found, others := scaffold.Guess([]scaffold.Service{s}, []string{"orders_api"})
		got := "none"
		for _, c := range found {
			for field := range c.Secrets {
				got = fmt.Sprintf("%s of %s", field, c.Name)
			}
		}
		if got != tt.want || (got == "none") != (len(others) == 1) {
			t.Errorf("Guess(%q at %q, %s) = %s (others: %v), want %s", tt.secret, tt.target, tt.variable, got, others, tt.want)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
