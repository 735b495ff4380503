package cli_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A watch keeps what could be read of keyturn's processes while they ran.
type watch struct {
	mark   string            // that stands in their command line
	others map[string]bool   // the processes that are not ours
	texts  map[string]string // by what it is
	stop   chan struct{}
	done   sync.WaitGroup
}

// watchProcesses samples command lines and environments of those of our children that are
// started with something in their command line.
func watchProcesses(mark string) *watch {
	w := &watch{mark: mark, others: map[string]bool{}, texts: map[string]string{}, stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(5 * time.Millisecond):
				w.sample()
			}
		}
	})
	return w
}

func (w *watch) sample() {
	all, _ := os.ReadDir("/proc") // what cannot be read has ended
	for _, entry := range all {
		pid := entry.Name()
		if w.others[pid] || strings.Trim(pid, "0123456789") != "" {
			continue
		}
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		_, after, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(after); err != nil || len(f) < 2 || f[1] != strconv.Itoa(os.Getpid()) {
			w.others[pid] = true
			continue
		}
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if !strings.Contains(string(line), w.mark) {
			continue // of another test, or about to be ours
		}
		env, _ := os.ReadFile("/proc/" + pid + "/environ")
		w.texts["the command line of "+pid] = string(line)
		w.texts["the environment of "+pid] = string(env)
	}
}

func (w *watch) end() map[string]string {
	close(w.stop)
	w.done.Wait()
	return w.texts
}

// noisy makes PostgreSQL log whatever it can.
func noisy() map[string]string {
	return map[string]string{"log_statement": "all", "log_min_duration_statement": "0", "log_min_error_statement": "debug5",
		"log_min_messages": "debug2", "log_connections": "on", "log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1",
		"debug_print_parse": "on", "debug_print_plan": "on", "log_error_verbosity": "verbose"}
}

// valuesIn returns the parts of a text that look like the values that Keyturn makes.
func valuesIn(text string) []string {
	found := regexp.MustCompile(`[A-Za-z0-9_-]+`).FindAllString(text, -1)
	return slices.DeleteFunc(found, func(part string) bool { return len(part) != 44 })
}

// TestNoValueLeaks goes through rotations, a failed one, a rollback and
// a panic, and then looks for every value that Keyturn made or was handed in
// everything that it could have left.
func TestNoValueLeaks(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{Settings: noisy()})
	temp := t.TempDir()
	s := newShop(t, pg, quick, "overlap: 1s")
	s.env = append(s.env, "TMPDIR="+temp)
	logged, err := pg.LogText() // the set-up's own statements hold passwords
	s.must(err)
	w, runs := watchProcesses(s.config), 0
	values := map[string]bool{}
	var said []string
	run := func(env []string, args ...string) {
		t.Helper()
		runs++
		r := s.runWith(env, append(args, "-v")...)
		said = append(said, r.stdout, r.stderr)
		for _, v := range s.values() {
			values[v] = true
		}
	}
	run(nil, "adopt", s.name)
	run(nil, "plan")
	run(nil, "prepare", s.name)
	run(nil, "validate", s.name)
	run(nil, "cutover", s.name)
	run(nil, "rollback", "--reason", "drill", s.name)
	run(nil, "prepare", s.name, "-o", "json")
	s.sql("postgres", "alter role "+s.name+"_a reset role")
	run(nil, "validate", s.name) // fails, and rolls back
	s.sql("postgres", "alter role "+s.name+"_a set role = "+s.name)
	for _, point := range []string{"after effect: prepare draft", "after effect: prepare put", "before effect: prepare arm", "after effect: prepare arm"} {
		run([]string{hooks.PanicAt + "=" + point}, "prepare", s.name)
		last := said[len(said)-1]
		if !strings.Contains(last, "panic: at "+point) {
			t.Errorf("there was no panic at %q:\n%s", point, last)
		}
		// What was drafted and put nowhere is known to nobody: nothing may look like it.
		if found := valuesIn(last); len(found) > 0 {
			t.Errorf("the panic at %q tells what looks like a value: %q", point, found)
		}
	}
	run(nil, "prepare", s.name)
	run([]string{"KEYTURN_PG_PASSWORD=wrong-canary-55cd"}, "validate", s.name)
	run(nil, "rotate", s.name)
	run(nil, "rotate", "--wait", s.name)
	run(nil, "status", "-o", "json")
	seen := w.end()
	if len(seen) < 2*runs { // of each its command line and its environment
		t.Errorf("of %d processes %d texts were read", runs, len(seen))
	}
	p := s.status()
	s.finished(p.Current)

	for v := range values {
		if len(valuesIn("password: "+v)) != 1 {
			t.Error("a value does not look as values do: the search for drafted ones finds nothing")
		}
	}
	if len(values) < 5 {
		t.Fatalf("only %d values were seen on their way", len(values))
	}
	handed := []string{adminPassword, firstPassword, "wrong-canary-55cd"}
	for v := range values {
		handed = append(handed, v)
	}
	for i, text := range said {
		seen["output "+strconv.Itoa(i)] = text
	}
	all, err := pg.LogText()
	s.must(err)
	seen["PostgreSQL's log"] = all[len(logged):]
	if !strings.Contains(seen["PostgreSQL's log"], "keyturn") {
		t.Fatal("PostgreSQL's log holds nothing of keyturn: it is not noisy enough for this test")
	}
	s.files(filepath.Dir(s.config), seen)
	s.files(temp, seen)
	for _, v := range handed {
		for where, text := range seen {
			if strings.HasPrefix(where, "the environment of ") { // what it was handed stands there, and nothing else may
				text = strings.ReplaceAll(text, "KEYTURN_PG_PASSWORD="+v, "")
			}
			if i := strings.Index(text, v); i >= 0 {
				t.Errorf("a value stands in %s, after %q", where, text[max(0, i-120):i])
			}
		}
	}
	if strings.Contains(seen["PostgreSQL's log"], "SCRAM-SHA-256$4096:") {
		t.Error("a verifier stands in PostgreSQL's log")
	}
}

// values returns every password that stands in a version's directory now.
func (s *shop) values() []string {
	files, err := filepath.Glob(filepath.Join(s.root, s.name, "v*", "password"))
	s.must(err)
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		s.must(err)
		if v := string(bytes.TrimSpace(b)); len(v) >= 32 {
			out = append(out, v)
		} else {
			s.t.Errorf("the password in %s has %d characters", f, len(v))
		}
	}
	return out
}

// files adds every file below a directory but the credential's own.
func (s *shop) files(dir string, into map[string]string) {
	s.t.Helper()
	s.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == s.root {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			s.must(err)
			into[path] = string(b)
		}
		return nil
	}))
}

// TestPasswordsAreStrong reads what Keyturn made: 256 bits, safe everywhere,
// and never the same twice.
func TestPasswordsAreStrong(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1s")
	s.ok("adopt", s.name)
	seen := map[string]bool{}
	for range 3 {
		s.ok("rotate", "--wait", s.name)
		for _, v := range s.values() {
			if seen[v] {
				t.Error("a password was used before")
			}
			seen[v] = true
			if strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || len(v) < 43 {
				t.Errorf("a password of %d characters: want at least 43 of A-Z a-z 0-9 - _", len(v))
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d passwords were seen, want 3", len(seen))
	}
}
