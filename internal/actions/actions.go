// Package actions is what a step of a GitHub Actions job is given and answers:
// inputs, masks, annotations, outputs and the step summary.
//
// The log of a step is read by the runner: a line that begins with "::" is a
// command. What Keyturn prints may come from elsewhere (a server's message), so
// text is written between ::stop-commands::TOKEN and ::TOKEN::, with a new random
// token each time; only what this package issues is a command. The formats are
// those of GitHub's reference "Workflow commands for GitHub Actions".
package actions

import (
	"bytes"
	"crypto/rand"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/sethvargo/go-githubactions"

	"github.com/keyturn/keyturn/internal/secret"
)

const (
	// leastMasked is how many bytes a line must have to be masked: the mask of a
	// short one, such as the brace of a JSON text, would hide half of every log.
	leastMasked = 6

	// mostSaid is how long the text of an annotation may be; GitHub cuts it there.
	mostSaid = 4096
)

// A Step is the step of a job that this process is. Its methods may be called
// from several goroutines.
type Step struct {
	getenv func(string) string
	cmds   *githubactions.Action

	mu     sync.Mutex
	log    io.Writer
	err    error  // the first one of writing the log
	token  string // while text is written: what ends it
	midway bool   // the last line has no end
	masked map[string]bool
}

// New returns the step that this process is. Its log is where the runner reads
// commands, which is the standard output. Getenv looks a variable up ([os.Getenv]).
func New(log io.Writer, getenv func(string) string) *Step {
	s := &Step{getenv: getenv, log: log, masked: map[string]bool{}}
	s.cmds = githubactions.New(githubactions.WithWriter(commandWriter{s}), githubactions.WithGetenv(getenv))
	return s
}

// Inside reports whether this process runs in a job of GitHub Actions.
func Inside(getenv func(string) string) bool { return getenv("GITHUB_ACTIONS") == "true" }

// Input returns the value of an input without the white space around it; "" is
// one that was not given.
func (s *Step) Input(name string) string { return s.cmds.GetInput(name) }

// Unknown returns the inputs that were given and are not known, sorted. Environ
// has the form of [os.Environ].
func Unknown(environ, known []string) []string {
	var out []string
	for _, entry := range environ {
		variable, _, _ := strings.Cut(entry, "=")
		name, ok := strings.CutPrefix(variable, "INPUT_")
		if name = strings.ToLower(name); ok && !slices.Contains(known, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Write implements [io.Writer]: text for the log, in which nothing is a command.
func (s *Step) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) == 0 {
		return 0, s.err
	}
	if s.token == "" {
		s.token = strings.ToLower(rand.Text())
		s.raw("::stop-commands::" + s.token + "\n")
	}
	s.raw(string(b))
	s.midway = b[len(b)-1] != '\n'
	if s.err != nil {
		return 0, s.err
	}
	return len(b), nil
}

// Resume ends the text, so that commands of later steps are read again.
func (s *Step) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resume()
	return s.err
}

func (s *Step) resume() {
	if s.midway {
		s.raw("\n")
		s.midway = false
	}
	if s.token != "" {
		s.raw("::" + s.token + "::\n")
		s.token = ""
	}
}

func (s *Step) raw(text string) {
	if s.err == nil {
		_, s.err = io.WriteString(s.log, text)
	}
}

// commandWriter writes commands between the texts. It never fails: the library
// panics then, and an error of the log is told by Resume.
type commandWriter struct{ s *Step }

// Write implements [io.Writer].
func (w commandWriter) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.resume()
	w.s.raw(string(b))
	return len(b), nil
}

// Mask lets the runner hide a value in the log from now on: the whole of it and
// each line, but none that is shorter than 6 bytes. The log of a runner that is
// not GitHub's shows the command, so it is given only values that the runner
// knows, or that it was handed.
func (s *Step) Mask(v secret.Value) {
	b := v.Reveal()
	parts := append([][]byte{b}, bytes.Split(b, []byte("\n"))...)
	for _, part := range parts {
		part = bytes.TrimSpace(part)
		if len(part) < leastMasked || bytes.IndexByte(part, '\n') >= 0 || s.known(string(part)) {
			continue
		}
		s.cmds.AddMask(string(part))
	}
}

// known reports whether a line is masked already, and notes it.
func (s *Step) known(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.masked[line]
	s.masked[line] = true
	return was
}

// Error annotates the run with what failed; the hint is its second line.
func (s *Step) Error(title, text, hint string) { s.titled(title).Errorf("%s", said(text, hint)) }

// Warning annotates the run with what should be looked at.
func (s *Step) Warning(title, text, hint string) { s.titled(title).Warningf("%s", said(text, hint)) }

// Notice annotates the run with what is good to know.
func (s *Step) Notice(title, text string) { s.titled(title).Noticef("%s", said(text, "")) }

func (s *Step) titled(title string) *githubactions.Action {
	return s.cmds.WithFieldsMap(map[string]string{"title": title})
}

// said joins a text and its hint. What is too long loses its middle, not the hint.
func said(text, hint string) string {
	if hint != "" {
		hint = "\nhint: " + hint
	}
	if room := mostSaid - len(hint); len(text) > room {
		text = strings.ToValidUTF8(text[:max(0, room-len(" …"))], "") + " …"
	}
	return text + hint
}
