package stackfile_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/target/swarm/stackfile"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// wants is what testdata/*.yml are compared with: version 2 of a credential of
// the services api and worker.
func wants(services ...string) []stackfile.Want {
	all := map[string]stackfile.Want{
		"api": {Service: "api", Files: map[string]string{"POSTGRES_PASSWORD_FILE": "orders_db_password_v2"},
			Env: map[string]stackfile.Value{"POSTGRES_USER": {New: "orders_a", Known: []string{"orders"}}}},
		"worker": {Service: "worker", Paths: map[string]string{"/run/secrets/db_url": "orders_db_url_v2"}},
	}
	var out []stackfile.Want
	for _, s := range services {
		out = append(out, all[s])
	}
	return out
}

// TestFiles compares and edits the files of testdata: beside each stands what is
// found and what is written, golden.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d stack files are tried (%v), want at least 15", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			check(t, err)
			got := report(t, filepath.Base(file), b)
			golden := strings.TrimSuffix(file, ".yml") + ".txt"
			if *update {
				check(t, os.WriteFile(golden, []byte(got), 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			check(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
			if strings.Contains(got, "canary") {
				t.Errorf("a value of the file is repeated:\n%s", got)
			}
		})
	}
}

func report(t *testing.T, name string, b []byte) string {
	t.Helper()
	f, err := stackfile.Parse(name, b)
	var fault *stackfile.Fault
	if errors.As(err, &fault) {
		return fault.Error() + "\nhint: " + fault.Hint() + "\n"
	}
	check(t, err)
	services := []string{"api"}
	if _, ok := f.Service("worker"); ok {
		services = append(services, "worker")
	}
	var out strings.Builder
	c := f.Compare("orders", wants(services...)...)
	for _, group := range []struct {
		name  string
		found []stackfile.Finding
	}{{"stale", c.Stale}, {"fault", c.Faults}, {"note", c.Notes}} {
		for _, x := range group.found {
			fault := stackfile.Fault{File: name, Place: x.Place, Text: x.Text}
			out.WriteString(group.name + ": " + fault.Error() + "\n  hint: " + x.Tip + "\n")
		}
	}
	edited, err := f.Edit("orders", wants(services...)...)
	if err != nil {
		if !errors.Is(err, stackfile.ErrByHand) {
			t.Errorf("Edit: %v, want an error that wraps ErrByHand", err)
		}
		return out.String() + "edit: " + err.Error() + "\n"
	}
	again, err := stackfile.Parse(name, []byte(edited.Text))
	check(t, err)
	if left := again.Compare("orders", wants(services...)...); len(c.Faults) == 0 && len(left.Stale) > 0 {
		t.Errorf("the edited file is still stale: %+v", left.Stale)
	}
	var meaning any
	check(t, yaml.Unmarshal([]byte(edited.Text), &meaning))
	return out.String() + edited.Diff
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMadeByTheFile notes a secret that is right now, and will not be after the
// next rotation; the file is right all the same.
func TestMadeByTheFile(t *testing.T) {
	b, err := os.ReadFile("testdata/plain-file.yml")
	check(t, err)
	f, err := stackfile.Parse("plain-file.yml", b)
	check(t, err)
	c := f.Compare("orders", stackfile.Want{Service: "api", Files: map[string]string{"POSTGRES_PASSWORD_FILE": "orders_db_password"},
		Env: map[string]stackfile.Value{"POSTGRES_USER": {New: "orders"}}})
	if !c.Right() || len(c.Notes) != 1 || c.Notes[0].Line != 12 || !strings.Contains(c.Notes[0].Text, "made by the file itself (file)") {
		t.Errorf("Compare = %+v, want a file that is right, and a note of line 12", c)
	}
	if f.Secrets[0].Made != "file" || f.Services[0].Mounts[0].Target != "/run/secrets/db_password" {
		t.Errorf("Parse = %+v", f)
	}
}

// TestEditedTwice edits what an edit made: of the next version.
func TestEditedTwice(t *testing.T) {
	b, err := os.ReadFile("testdata/plain-file.yml")
	check(t, err)
	text := string(b)
	for _, v := range []struct{ object, user, before string }{{"x_v2", "orders_a", "orders"}, {"x_v3", "orders_b", "orders_a"}} {
		f, err := stackfile.Parse("f.yml", []byte(text))
		check(t, err)
		w := stackfile.Want{Service: "api", Files: map[string]string{"POSTGRES_PASSWORD_FILE": v.object},
			Env: map[string]stackfile.Value{"POSTGRES_USER": {New: v.user, Known: []string{v.before}}}}
		edited, err := f.Edit("orders", w)
		check(t, err)
		text = edited.Text
		again, err := f.Edit("orders", w)
		check(t, err)
		if again != edited {
			t.Error("Edit differs from one call to the next")
		}
	}
	want := strings.NewReplacer("POSTGRES_USER: orders ", "POSTGRES_USER: orders_b ",
		"    file: ./db_password.txt # not in git\n", "    external: true\n    name: x_v3\n").Replace(string(b))
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("after two edits (-want +got):\n%s", diff)
	}
}

// FuzzEdit edits whatever can be parsed: no panic, and what is not edited stays.
func FuzzEdit(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := stackfile.Parse("f.yml", b)
		if err != nil {
			return
		}
		edited, err := file.Edit("orders", wants("api", "worker")...)
		if err == nil && (edited.Diff == "") != (edited.Text == string(b)) {
			t.Errorf("the diff is %q, and the text became %q", edited.Diff, edited.Text)
		}
	})
}
