package rotated_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotated"
)

// The drivers print who is let in, one after the other, each of those before refused:
// of the directory DIR, if there is one, else of the variables.
var drivers = map[string][]string{
	"python3": {"-c", `
import json, os, sys
sys.path.insert(0, "../docs/examples/python")
sys.dont_write_bytecode = True
import credentials
seen = []
def connect(c):
    seen.append(c["username"] + "/" + c["password"])
    raise credentials.Refused()
try:
    if os.environ.get("DIR"): credentials.first(credentials.directory(os.environ["DIR"], ["username", "password"]), connect)
    else: credentials.log_in({"U": "username", "P": "password"}, connect)
except Exception: pass
print(json.dumps(seen))`},
	"node": {"-e", `
const { directory, first, logIn, Refused } = require("../docs/examples/node/credentials.js");
const seen = [];
const connect = (c) => { seen.push(c.username + "/" + c.password); throw new Refused(); };
(process.env.DIR ? first(directory(process.env.DIR, ["username", "password"]), connect) : logIn({ U: "username", P: "password" }, connect))
  .catch(() => {}).then(() => console.log(JSON.stringify(seen)));`},
}

// run returns whom an example lets in.
func run(t *testing.T, program string, env []string) string {
	t.Helper()
	got := []string{}
	cmd := exec.Command(program, drivers[program]...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Errorf("%s with %q: %v", program, env, err)
	}
	return strings.Join(got, "|")
}

// tried returns whom the package lets in.
func tried(source *rotated.Source) string {
	var want []string
	_ = source.Do(context.Background(), func(_ context.Context, c rotated.Credential) error {
		want = append(want, c.Field("username")+"/"+c.Field("password"))
		return rotated.Refused(errors.New("no"))
	})
	return strings.Join(want, "|")
}

// The examples in other languages try the same credentials as the package, in the same order.
func TestLanguagesAgree(t *testing.T) {
	t.Parallel()
	for _, example := range []string{"python/credentials.py", "node/credentials.js"} {
		if _, err := os.ReadFile("../docs/examples/" + example); err != nil { // so that the go command tests a changed one again
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"v1": "one\n", "v2": "two\r\n", "twice": "end\n\n", "empty": "\n", "blank": " three ", "return": "four\r", "returns": "five\r\r\n", "user": "b\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, vars := range []string{
		"U=a P=plain", "U=a", "", "U=a P_FILE=v1", "U=a P_FILE=v1 U_NEW=b P_FILE_NEW=v2", "U=a P_FILE=v1 P_FILE_NEW=v2",
		"U=a P_FILE=missing P=plain", "U=a P_FILE=missing U_NEW=b P_FILE_NEW=v2", "U=a P_FILE=empty P=plain", "U=a P_FILE=v1 P=plain",
		"U_FILE=user P_FILE=v1 U=a P=plain", "U_FILE=user P_FILE=v1 U_FILE_NEW=user P_FILE_NEW=v1", "U=a P=plain U_NEW=b P_NEW=next",
		"U=a P_FILE=twice", "U=a P_FILE=blank", "U=a P_FILE=return", "U=a P_FILE=returns", "U=a P_FILE=v1 U_NEW=b P_FILE_NEW=missing", "U=a P_FILE= P=plain",
		"U=a P_FILE=v1 U_NEW=b P_FILE_NEW=folder", "U=a P_FILE=folder P=plain",
	} {
		env := []string{}
		for _, v := range strings.Fields(vars) {
			name, value, _ := strings.Cut(v, "=")
			if strings.Contains(name, "_FILE") && value != "" {
				value = filepath.Join(dir, value)
			}
			env = append(env, name+"="+value)
		}
		lookup := func(name string) (string, bool) {
			for _, v := range env {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value, true
				}
			}
			return "", false
		}
		want := tried(rotated.EnvFunc(lookup, rotated.Vars{"U": "username", "P": "password"}))
		total += strings.Count(want, "/")
		for program := range drivers {
			if got := run(t, program, env); got != want {
				t.Errorf("%s with %q tries %q, the package %q", program, vars, got, want)
			}
		}
	}
	if total < 15 {
		t.Errorf("%d credentials were tried in all, want at least 15", total)
	}
}

// The same of a directory of versions, whatever is missing in it.
func TestLanguagesAgreeOnDirectories(t *testing.T) {
	t.Parallel()
	for name, links := range map[string]map[string]string{
		"one": {"current": "v1"}, "two": {"current": "v1", "next": "v2"}, "only next": {"next": "v2"}, "none": {},
		"half": {"current": "half", "next": "v2"}, "dangling": {"current": "gone", "next": "v1"}, "half of next": {"current": "v1", "next": "half"},
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{"v1/username": "a", "v1/password": "one\n", "v2/username": "b\n", "v2/password": "two\r\n", "half/username": "c"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for link, to := range links {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		want := tried(rotated.Dir(dir, "username", "password"))
		for program := range drivers {
			if got := run(t, program, []string{"DIR=" + dir}); got != want {
				t.Errorf("%s with %s tries %q, the package %q", program, name, got, want)
			}
		}
		if (want == "") != (name == "none") {
			t.Errorf("with %s the package tries %q", name, want)
		}
	}
}
