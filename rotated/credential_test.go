package rotated_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotated"
)

const canary = "canary-7f3a-do-not-print"

type holder struct {
	Public rotated.Credential
	hidden rotated.Credential
	ptr    *rotated.Credential
	source *rotated.Source
}

func TestNothingPrintsAValue(t *testing.T) {
	source := setting{
		env:   map[string]string{"DB_USER": canary, "DB_PASSWORD_FILE": "@p"},
		files: map[string]string{"p": canary},
	}.source(t, login)
	c, err := source.Current(t.Context())
	must(t, err)
	failed := source.Do(t.Context(), refuseAll) // the source remembers it now
	h := holder{Public: c, hidden: c, ptr: &c, source: source}
	things := map[string]any{
		"credential": c, "pointer": &c, "struct": h, "struct pointer": &h, "slice": []rotated.Credential{c},
		"map": map[string]rotated.Credential{"k": c}, "source": source, "error": failed,
	}
	for name, thing := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%b", "%p", "%T", "%08.3f"} {
			refuse(t, name+" "+verb, fmt.Sprintf(verb, thing))
		}
		b, err := json.Marshal(thing)
		if err != nil {
			t.Errorf("json of %s: %v", name, err)
		}
		refuse(t, name+" json", string(b))
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", thing)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", thing)
		refuse(t, name+" slog", out.String())
	}
	if fmt.Sprint(c) != "[redacted]" {
		t.Errorf("a credential prints %q", fmt.Sprint(c))
	}
}

func refuse(t *testing.T, how, out string) {
	t.Helper()
	low := strings.ToLower(out)
	for _, bad := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprint([]byte(canary))} {
		if strings.Contains(low, bad) {
			t.Errorf("%s prints the value: %s", how, out)
		}
	}
}

// Errors of every kind of fault name variables and paths, never what is in them.
func TestNoErrorHoldsAValue(t *testing.T) {
	for name, s := range map[string]setting{
		"half":    {env: map[string]string{"DB_USER": canary, "DB_PASSWORD_FILE": "@gone"}},
		"empty":   {env: map[string]string{"DB_USER": canary, "DB_PASSWORD_FILE": "@e"}, files: map[string]string{"e": ""}},
		"huge":    {env: map[string]string{"DB_USER": canary, "DB_PASSWORD_FILE": "@e"}, files: map[string]string{"e": strings.Repeat(canary, 1<<16)}},
		"half of": {env: map[string]string{"DB_USER_FILE": "@u", "DB_PASSWORD_FILE_NEW": "@u"}, files: map[string]string{"u": canary}},
	} {
		_, err := s.source(t, login).Current(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		refuse(t, name, fmt.Sprintf("%v %+v %#v", err, err, err))
	}
}

func TestEqual(t *testing.T) {
	read := func(fields map[string]string) rotated.Credential {
		vars := rotated.Vars{}
		for field := range fields {
			vars["X_"+field] = field
		}
		c, err := rotated.EnvFunc(func(name string) (string, bool) {
			v, ok := fields[strings.TrimPrefix(name, "X_")]
			return v, ok
		}, vars).Current(t.Context())
		must(t, err)
		return c
	}
	one := read(map[string]string{"a": "1", "b": "2"})
	if !one.Equal(read(map[string]string{"a": "1", "b": "2"})) {
		t.Error("equal credentials are not Equal")
	}
	for _, other := range []map[string]string{{"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "c": "2"}, {"a": "1", "b": "2", "c": "3"}} {
		if one.Equal(read(other)) {
			t.Errorf("Equal to %v", other)
		}
	}
	var zero rotated.Credential
	if !zero.IsZero() || one.IsZero() || zero.Equal(one) || !zero.Equal(rotated.Credential{}) || zero.Field("a") != "" || zero.Origin() != "" {
		t.Error("the zero Credential is not empty")
	}
}

func TestSourcesKeepTheirOwnCopyOfFields(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.move(1)
	fields := []string{"username", "password"}
	source := rotated.Dir(filepath.Clean(v.path), fields...)
	fields[0] = "other"
	if _, err := source.Current(t.Context()); err != nil {
		t.Error(err)
	}
}
