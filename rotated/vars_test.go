package rotated_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/rotated"
)

var login = rotated.Vars{"DB_USER": "username", "DB_PASSWORD": "password"}

// A setting is an environment and the files it names: values that begin with
// "@" are names of files in a fresh folder.
type setting struct {
	env   map[string]string
	files map[string]string
}

func (s setting) source(t *testing.T, vars rotated.Vars) *rotated.Source {
	t.Helper()
	dir := t.TempDir()
	for name, text := range s.files {
		write(t, filepath.Join(dir, name), text)
	}
	env := map[string]string{}
	for name, value := range s.env {
		if file, ok := strings.CutPrefix(value, "@"); ok {
			value = filepath.Join(dir, file)
		}
		env[name] = value
	}
	return rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, vars)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pairs returns what candidates hold: "user/password".
func pairs(list []rotated.Credential) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Field("username")+"/"+c.Field("password"))
	}
	return out
}

func TestEnvCandidates(t *testing.T) {
	tests := map[string]struct {
		setting
		want    []string
		origins []string
		fault   string // part of the error when there is no candidate
	}{
		"nothing": {fault: "neither DB_PASSWORD_FILE nor DB_PASSWORD is set, neither DB_USER_FILE nor DB_USER is set"},
		"plain": {
			setting: setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD": "p"}},
			want:    []string{"u/p"}, origins: []string{"DB_PASSWORD and DB_USER"},
		},
		"plain is as it is": {
			setting: setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD": "p\n"}},
			want:    []string{"u/p\n"},
		},
		"plain half": {
			setting: setting{env: map[string]string{"DB_USER": "u"}},
			fault:   "neither DB_PASSWORD_FILE nor DB_PASSWORD is set",
		},
		"set to nothing is unset": {
			setting: setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD": "", "DB_PASSWORD_FILE": ""}},
			fault:   "neither DB_PASSWORD_FILE nor DB_PASSWORD is set",
		},
		"switch: public name, password in a file": {
			setting: setting{env: map[string]string{"DB_USER": "u2", "DB_PASSWORD_FILE": "@p"}, files: map[string]string{"p": "p2"}},
			want:    []string{"u2/p2"}, origins: []string{"DB_PASSWORD_FILE and DB_USER"},
		},
		"both in files": {
			setting: setting{
				env:   map[string]string{"DB_USER_FILE": "@u", "DB_PASSWORD_FILE": "@p"},
				files: map[string]string{"u": "u1\n", "p": "p1\n"},
			},
			want: []string{"u1/p1"}, origins: []string{"DB_PASSWORD_FILE and DB_USER_FILE"},
		},
		"the file wins over the variable of the same field": {
			setting: setting{
				env:   map[string]string{"DB_USER": "old", "DB_USER_FILE": "@u", "DB_PASSWORD": "older", "DB_PASSWORD_FILE": "@p"},
				files: map[string]string{"u": "u1", "p": "p1"},
			},
			want: []string{"u1/p1", "old/older"},
		},
		"dual": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"p": "p1", "n": "p2"},
			},
			want: []string{"u1/p1", "u2/p2"}, origins: []string{"DB_PASSWORD_FILE and DB_USER", "DB_PASSWORD_FILE_NEW and DB_USER_NEW"},
		},
		"dual, all files, and the environment": {
			setting: setting{
				env: map[string]string{
					"DB_USER_FILE": "@u", "DB_PASSWORD_FILE": "@p", "DB_USER_FILE_NEW": "@v", "DB_PASSWORD_FILE_NEW": "@n",
					"DB_USER": "u0", "DB_PASSWORD": "p0",
				},
				files: map[string]string{"u": "u1", "p": "p1", "v": "u2", "n": "p2"},
			},
			want: []string{"u1/p1", "u2/p2", "u0/p0"},
		},
		// Hard problem 45: the new password never meets the old name, nor the other way round.
		"new password without a new name": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"p": "p1", "n": "p2"},
			},
			want: []string{"u1/p1"},
		},
		"new password without a new name, the current one gone": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@gone", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"n": "p2"},
			},
			fault: "neither DB_USER_FILE_NEW nor DB_USER_NEW is set; DB_PASSWORD is not set",
		},
		"new name without a new password": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_NEW": "u2"},
				files: map[string]string{"p": "p1"},
			},
			want: []string{"u1/p1"},
		},
		"a new name in a file, the current one plain": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_FILE_NEW": "@v", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"p": "p1", "v": "u2", "n": "p2"},
			},
			want: []string{"u1/p1", "u2/p2"},
		},
		"a left-over password does not meet the name that belongs to the file": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u2", "DB_PASSWORD_FILE": "@p", "DB_PASSWORD": "left-over"},
				files: map[string]string{"p": "p2"},
			},
			want: []string{"u2/p2"},
		},
		"missing file: the next one": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@gone", "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"n": "p2"},
			},
			want: []string{"u2/p2"},
		},
		"missing file: the environment": {
			setting: setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD": "p", "DB_PASSWORD_FILE": "@gone"}},
			want:    []string{"u/p"},
		},
		"one file of two is missing": {
			setting: setting{
				env:   map[string]string{"DB_USER_FILE": "@u", "DB_PASSWORD_FILE": "@gone"},
				files: map[string]string{"u": "u1"},
			},
			fault: "no such file",
		},
		"empty file: the next one": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@e", "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": "@n"},
				files: map[string]string{"e": "", "n": "p2"},
			},
			want: []string{"u2/p2"},
		},
		"a file of one newline is empty": {
			setting: setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD_FILE": "@e"}, files: map[string]string{"e": "\n"}},
			fault:   "is empty",
		},
		"the same twice is one": {
			setting: setting{
				env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_NEW": "u1", "DB_PASSWORD_FILE_NEW": "@p"},
				files: map[string]string{"p": "p1"},
			},
			want: []string{"u1/p1"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := test.source(t, login).Candidates(t.Context())
			if test.fault != "" {
				if !errors.Is(err, rotated.ErrMissing) || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("Candidates: error %v, want ErrMissing with %q", err, test.fault)
				}
			} else if err != nil {
				t.Errorf("Candidates: %v", err)
			}
			if diff := cmp.Diff(test.want, pairs(got)); diff != "" {
				t.Errorf("Candidates (-want +got):\n%s", diff)
			}
			var origins []string
			for _, c := range got {
				origins = append(origins, c.Origin())
			}
			if diff := cmp.Diff(test.origins, origins); test.origins != nil && diff != "" {
				t.Errorf("origins (-want +got):\n%s", diff)
			}
		})
	}
}

// No subset of variables ever gives a credential with parts of two versions.
func TestEnvNeverMixes(t *testing.T) {
	dir := t.TempDir()
	all := map[string]string{"DB_USER": "1", "DB_PASSWORD": "0", "DB_USER_NEW": "2", "DB_PASSWORD_NEW": "2"}
	for name, version := range map[string]string{
		"DB_USER_FILE": "1", "DB_PASSWORD_FILE": "1", "DB_USER_FILE_NEW": "2", "DB_PASSWORD_FILE_NEW": "2",
	} {
		all[name] = filepath.Join(dir, name)
		write(t, all[name], version)
	}
	names := []string{"DB_USER", "DB_PASSWORD", "DB_USER_NEW", "DB_PASSWORD_NEW", "DB_USER_FILE", "DB_PASSWORD_FILE", "DB_USER_FILE_NEW", "DB_PASSWORD_FILE_NEW"}
	seen := 0
	for set := range 1 << len(names) {
		env := map[string]string{}
		for i, name := range names {
			if set&(1<<i) != 0 {
				env[name] = all[name]
			}
		}
		// The plain password is a left-over of version 0. It may go with the
		// plain name only where no file of a password takes that name.
		left := env["DB_USER_FILE"] == "" && env["DB_PASSWORD_FILE"] == ""
		source := rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, login)
		list, _ := source.Candidates(t.Context())
		for _, c := range list {
			seen++
			if u, p := c.Field("username"), c.Field("password"); u != p && !(u == "1" && p == "0" && (left || env["DB_USER_FILE"] != "")) {
				t.Errorf("%v gives name %s with password %s (from %s)", maps.Clone(env), u, p, c.Origin())
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d credentials were seen", seen)
	}
}

func TestTrimsOneNewline(t *testing.T) {
	for text, want := range map[string]string{
		"p": "p", "p\n": "p", "p\r\n": "p", "p\n\n": "p\n", "p\r\n\r\n": "p\r\n", "p\r": "p\r", " p \n": " p ", "\np": "\np", "p\n\r\n": "p\n",
	} {
		s := setting{env: map[string]string{"T_FILE": "@f"}, files: map[string]string{"f": text}}
		c, err := s.source(t, rotated.Vars{"T": "token"}).Current(t.Context())
		if err != nil || c.Field("token") != want {
			t.Errorf("a file of %q gives %q, %v, want %q", text, c.Field("token"), err, want)
		}
	}
}

// What is there and cannot be read is an error, and nothing behind it is used.
func TestUnreadableIsNotMissing(t *testing.T) {
	tests := map[string]struct {
		text  string
		prep  func(t *testing.T, path string)
		fault string
	}{
		"directory": {prep: func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, fault: "not a regular file"},
		"huge": {prep: func(t *testing.T, path string) {
			write(t, path, strings.Repeat("x", 1<<20+1))
		}, fault: "larger than 1048576 bytes"},
		"loop": {prep: func(t *testing.T, path string) { must(t, os.Symlink(path, path)) }, fault: "too many levels"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			test.prep(t, path)
			env := map[string]string{"DB_USER": "u", "DB_PASSWORD": "p", "DB_PASSWORD_FILE": path}
			source := rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, login)
			list, err := source.Candidates(t.Context())
			if len(list) > 0 || err == nil || errors.Is(err, rotated.ErrMissing) || !strings.Contains(err.Error(), test.fault) {
				t.Errorf("Candidates = %v, %v, want an error with %q", pairs(list), err, test.fault)
			}
		})
	}
}

// A next credential that cannot be read does no harm to the current one.
func TestUnreadableNextLeavesCurrent(t *testing.T) {
	s := setting{
		env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": "@."},
		files: map[string]string{"p": "p1"},
	}
	source := s.source(t, login)
	list, err := source.Candidates(t.Context())
	if diff := cmp.Diff([]string{"u1/p1"}, pairs(list)); diff != "" || err != nil {
		t.Errorf("Candidates: %v (-want +got):\n%s", err, diff)
	}
	err = source.Do(t.Context(), refuseAll)
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Do, all refused: %v, want also why the next one was not tried", err)
	}
}

func TestEnvRejectsBadVars(t *testing.T) {
	for name, vars := range map[string]rotated.Vars{
		"none": {}, "no field": {"A": ""}, "no variable": {"": "a"}, "one field twice": {"A": "x", "B": "x"},
	} {
		if _, err := rotated.Env(vars).Current(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, rotated.ErrMissing) {
			t.Errorf("%s: error %v, want one that names the mistake", name, err)
		}
	}
}

func TestEnvReadsTheEnvironment(t *testing.T) {
	t.Setenv("KEYTURN_TEST_USER", "u")
	t.Setenv("KEYTURN_TEST_PASSWORD", "p")
	c, err := rotated.Env(rotated.Vars{"KEYTURN_TEST_USER": "username", "KEYTURN_TEST_PASSWORD": "password"}).Current(t.Context())
	if err != nil || c.Field("username") != "u" || c.Field("password") != "p" {
		t.Errorf("Current = %q, %q, %v", c.Field("username"), c.Field("password"), err)
	}
	if c.Field("nonsense") != "" || c.Has("nonsense") || !c.Has("username") {
		t.Error("a field that is not there is there")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
