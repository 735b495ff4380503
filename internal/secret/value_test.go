package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

const canary = "canary-7f3a-do-not-print"

type holder struct {
	Public string
	Value  secret.Value
	hidden secret.Value
	ptr    *secret.Value
}

func TestNothingPrintsAValue(t *testing.T) {
	v := secret.FromString(canary)
	h := holder{Public: "p", Value: v, hidden: v, ptr: &v}
	things := map[string]any{"value": v, "pointer": &v, "struct": h, "struct pointer": &h,
		"slice": []secret.Value{v}, "map": map[string]secret.Value{"k": v}, "holder slice": []holder{h}}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%b", "%p", "%w", "%T"}
	hexed := fmt.Sprintf("%x", canary)
	for name, thing := range things {
		for _, verb := range verbs {
			refuse(t, name+" "+verb, fmt.Sprintf(verb, thing), hexed)
		}
		b, err := json.Marshal(thing)
		if err != nil {
			t.Fatalf("json of %s: %v", name, err)
		}
		refuse(t, name+" json", string(b), hexed)
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", thing)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", thing)
		refuse(t, name+" slog", out.String(), hexed)
	}
	refuse(t, "error", errors.Join(fmt.Errorf("doing: %v", v), errors.New("x")).Error(), hexed)
	if b, err := xml.Marshal(v); err == nil {
		refuse(t, "xml", string(b), hexed)
	}
}

func refuse(t *testing.T, how, out, hexed string) {
	t.Helper()
	low := strings.ToLower(out)
	for _, bad := range []string{canary, hexed, fmt.Sprint([]byte(canary))} {
		if strings.Contains(low, bad) {
			t.Errorf("%s prints the value: %s", how, out)
		}
	}
}

func TestGenerate(t *testing.T) {
	form := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{43}$`)
	seen := map[string]bool{}
	count := map[byte]int{}
	const n = 20000
	for range n {
		s := string(secret.Generate().Reveal())
		if !form.MatchString(s) {
			t.Fatalf("a generated value does not match %v", form)
		}
		if seen[s] {
			t.Fatal("a value came twice")
		}
		seen[s] = true
		for i := 1; i < len(s); i++ {
			count[s[i]]++
		}
	}
	if len(count) != 64 {
		t.Fatalf("%d different characters, want 64", len(count))
	}
	// Chi-squared with 63 degrees of freedom: above 130 has a chance of 1 in 10^6.
	want := float64(n*43) / 64
	var chi float64
	for _, c := range count {
		d := float64(c) - want
		chi += d * d / want
	}
	if chi > 130 {
		t.Errorf("characters are not even: chi-squared %.1f, want below 130", chi)
	}
}

func TestFingerprint(t *testing.T) {
	if _, err := secret.NewFingerprinter(secret.FromString("short")); err == nil {
		t.Error("NewFingerprinter took a short key")
	}
	f, err := secret.NewFingerprinter(secret.FromString(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	v := secret.FromString(canary)
	a, b := f.Fingerprint("one", v), f.Fingerprint("two", v)
	if a == b || a != f.Fingerprint("one", v) || len(a) != 64 {
		t.Errorf("Fingerprint = %q in one scope, %q in another", a, b)
	}
	if f.Fingerprint("one", secret.FromString("other")) == a {
		t.Error("two values have one fingerprint")
	}
}

func TestSource(t *testing.T) {
	env := func(k string) string { return map[string]string{"PW": canary}[k] }
	v, err := secret.Source{Env: "PW"}.Read(env)
	if err != nil || string(v.Reveal()) != canary {
		t.Errorf("Read of a set variable failed: %v", err)
	}
	if _, err := (secret.Source{Env: "NONE"}).Read(env); !errors.Is(err, secret.ErrMissing) {
		t.Errorf("Read of an unset variable = %v, want ErrMissing", err)
	}
	if _, err := (secret.Source{File: t.TempDir() + "/none"}).Read(env); err == nil {
		t.Error("Read of a missing file succeeded")
	}
}

// TestOneTrailingNewline: exactly one is cut, wherever the value stands.
func TestOneTrailingNewline(t *testing.T) {
	for text, want := range map[string]string{
		"a": "a", "a\n": "a", "a\r\n": "a", "a\n\n": "a\n", "a\r": "a\r", "a\r\r\n": "a\r", "\na": "\na", "a \n": "a ",
	} {
		if got := string(secret.TrimNewline([]byte(text))); got != want {
			t.Errorf("TrimNewline(%q) = %q, want %q", text, got, want)
		}
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, source := range []secret.Source{{Env: "V"}, {File: file}} {
			v, err := source.Read(func(string) string { return text })
			if err != nil || string(v.Reveal()) != want {
				t.Errorf("Read of %q from %s = %q, %v, want %q", text, source, v.Reveal(), err, want)
			}
		}
	}
	if _, err := (secret.Source{Env: "V"}).Read(func(string) string { return "\n" }); !errors.Is(err, secret.ErrMissing) {
		t.Errorf("Read of a newline = %v, want ErrMissing", err)
	}
}
