package rotatedpgx_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"
)

const canary = "canary-7f3a-do-not-print"

// credential returns one with the given fields.
func credential(t *testing.T, fields map[string]string) rotated.Credential {
	t.Helper()
	vars := rotated.Vars{}
	for field := range fields {
		vars["X_"+field] = field
	}
	c, err := rotated.EnvFunc(func(name string) (string, bool) {
		v, ok := fields[strings.TrimPrefix(name, "X_")]
		return v, ok
	}, vars).Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApply(t *testing.T) {
	t.Setenv("PGUSER", "someone")
	t.Setenv("PGPASSWORD", "something")
	tests := map[string]struct {
		fields map[string]string
		want   string // user/password
		fault  string
	}{
		"fields":             {fields: map[string]string{"username": "u", "password": "p"}, want: "u/p"},
		"fields before dsn":  {fields: map[string]string{"username": "u", "password": "p", "dsn": "postgres://a:b@h/d"}, want: "u/p"},
		"url":                {fields: map[string]string{"dsn": "postgres://u:p%40%2F@other:1/d?sslmode=disable"}, want: "u/p@/"},
		"url, other scheme":  {fields: map[string]string{"dsn": "postgresql://u:p@other/d"}, want: "u/p"},
		"url, as settings":   {fields: map[string]string{"dsn": "postgres://other/d?user=u&password=p"}, want: "u/p"},
		"keywords":           {fields: map[string]string{"dsn": `host=other user=u password='p \'x'`}, want: "u/p 'x"},
		"no password":        {fields: map[string]string{"username": canary}, fault: `has neither the fields "username" and "password" nor the field "dsn"`},
		"url, no user":       {fields: map[string]string{"dsn": "postgres://other/" + canary}, fault: "both a user and a password"},
		"url, no password":   {fields: map[string]string{"dsn": "postgres://" + canary + "@other/d"}, fault: "both a user and a password"},
		"keywords, no user":  {fields: map[string]string{"dsn": "host=other password=" + canary}, fault: "both a user and a password"},
		"keywords, half":     {fields: map[string]string{"dsn": "host=other user=" + canary}, fault: "both a user and a password"},
		"bad url":            {fields: map[string]string{"dsn": "postgres://u:" + canary + "%zz@other"}, fault: "is no URL"},
		"bad keywords":       {fields: map[string]string{"dsn": canary}, fault: "is no connection string"},
		"bad value in a url": {fields: map[string]string{"dsn": "postgres://u:" + canary + "@h/d?sslmode=" + canary}, fault: "is no connection string"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config, err := pgx.ParseConfig("postgres://before:before@h:5433/db?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			err = rotatedpgx.Apply(credential(t, test.fields), config)
			got := config.User + "/" + config.Password
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
					t.Errorf("Apply: %v, want an error with %q and without the value", err, test.fault)
				}
				test.want = "before/before"
			} else if err != nil {
				t.Errorf("Apply: %v", err)
			}
			if got != test.want || config.Host != "h" || config.Port != 5433 || config.Database != "db" {
				t.Errorf("Apply gives %s at %s:%d/%s, want %s at h:5433/db", got, config.Host, config.Port, config.Database, test.want)
			}
		})
	}
}

func TestIsRefused(t *testing.T) {
	for code, want := range map[string]bool{"28P01": true, "28000": true, "53300": false, "57P03": false, "08P01": false, "3D000": false, "42501": false} {
		err := fmt.Errorf("connecting: %w", &pgconn.PgError{Code: code})
		if got := rotatedpgx.IsRefused(err); got != want {
			t.Errorf("IsRefused(SQLSTATE %s) = %v, want %v", code, got, want)
		}
	}
	if rotatedpgx.IsRefused(nil) || rotatedpgx.IsRefused(errors.New("28P01")) {
		t.Error("IsRefused of an error that PostgreSQL did not send")
	}
}
