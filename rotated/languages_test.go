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

// The drivers print who is let in, one after the other, each of those before refused.
var drivers = map[string][]string{
	"python3": {"-c", `
import json, sys
sys.path.insert(0, "../docs/examples/python")
sys.dont_write_bytecode = True
import credentials
variables, seen = {"U": "username", "P": "password"}, []
def connect(c):
    seen.append(c["username"] + "/" + c["password"])
    raise credentials.Refused()
try: credentials.log_in(variables, connect)
except Exception: pass
print(json.dumps(seen))`},
	"node": {"-e", `
const { logIn } = require("../docs/examples/node/credentials.js"), { Refused } = require("../docs/examples/node/credentials.js");
const seen = [];
logIn({ U: "username", P: "password" }, (c) => { seen.push(c.username + "/" + c.password); throw new Refused(); })
  .catch(() => {}).then(() => console.log(JSON.stringify(seen)));`},
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
	for name, text := range map[string]string{"v1": "one\n", "v2": "two\r\n", "twice": "end\n\n", "empty": "\n", "blank": " three ", "return": "four\r", "user": "b\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, vars := range []string{
		"U=a P=plain", "U=a", "", "U=a P_FILE=v1", "U=a P_FILE=v1 U_NEW=b P_FILE_NEW=v2", "U=a P_FILE=v1 P_FILE_NEW=v2",
		"U=a P_FILE=missing P=plain", "U=a P_FILE=missing U_NEW=b P_FILE_NEW=v2", "U=a P_FILE=empty P=plain", "U=a P_FILE=v1 P=plain",
		"U_FILE=user P_FILE=v1 U=a P=plain", "U_FILE=user P_FILE=v1 U_FILE_NEW=user P_FILE_NEW=v1", "U=a P=plain U_NEW=b P_NEW=next",
		"U=a P_FILE=twice", "U=a P_FILE=blank", "U=a P_FILE=return", "U=a P_FILE=v1 U_NEW=b P_FILE_NEW=missing", "U=a P_FILE= P=plain",
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
		want := []string{}
		source := rotated.EnvFunc(lookup, rotated.Vars{"U": "username", "P": "password"})
		_ = source.Do(context.Background(), func(_ context.Context, c rotated.Credential) error {
			want = append(want, c.Field("username")+"/"+c.Field("password"))
			return rotated.Refused(errors.New("no"))
		})
		tried += len(want)
		for program, args := range drivers {
			got := []string{}
			cmd := exec.Command(program, args...)
			cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
			out, err := cmd.Output()
			if err == nil {
				err = json.Unmarshal(out, &got)
			}
			if a, b := strings.Join(got, "|"), strings.Join(want, "|"); err != nil || a != b {
				t.Errorf("%s with %q tries %q (%v), the package %q", program, vars, a, err, b)
			}
		}
	}
	if tried < 15 {
		t.Errorf("%d credentials were tried in all, want at least 15", tried)
	}
}
