package actions_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/actions"
	"github.com/keyturn/keyturn/internal/secret"
)

// A runner reads a log as GitHub's does: commands, and text.
type runner struct {
	commands []string
	text     []string
	stopped  string
}

func read(log string) *runner {
	r := &runner{}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		token, stops := strings.CutPrefix(line, "::stop-commands::")
		switch {
		case r.stopped != "" && line == "::"+r.stopped+"::":
			r.stopped = ""
		case r.stopped == "" && stops:
			r.stopped = token
		case r.stopped == "" && strings.HasPrefix(line, "::"):
			r.commands = append(r.commands, line)
		default:
			r.text = append(r.text, line)
		}
	}
	return r
}

func none(string) string { return "" }

func TestTextIsNoCommand(t *testing.T) {
	var log bytes.Buffer
	s := actions.New(&log, none)
	fmt.Fprint(s, "a line\n::error::by a server\n::stop")
	fmt.Fprint(s, "-commands::x\n::set-output name=a::b")
	s.Error("keyturn cutover", "it failed\n::warning::not this", "run it again")
	fmt.Fprint(s, "::add-mask::e\n")
	s.Warning("keyturn", "look, 100%", "")
	s.Notice("a:b,c", "known")
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	r := read(log.String())
	want := []string{
		"::error title=keyturn cutover::it failed%0A::warning::not this%0Ahint: run it again",
		"::warning title=keyturn::look, 100%25",
		"::notice title=a%3Ab%2Cc::known",
	}
	if !slices.Equal(r.commands, want) {
		t.Errorf("commands are\n%s\nwant\n%s", strings.Join(r.commands, "\n"), strings.Join(want, "\n"))
	}
	if text := strings.Join(r.text, "\n"); text != "a line\n::error::by a server\n::stop-commands::x\n::set-output name=a::b\n::add-mask::e" {
		t.Errorf("the text is\n%s", text)
	}
	if r.stopped != "" {
		t.Error("commands of later steps are not read")
	}
	if tokens := strings.Count(log.String(), "::stop-commands::"); tokens != 3 { // two of ours, and the one in the text
		t.Errorf("commands were stopped %d times, want 2 and 1 in the text:\n%s", tokens, log.String())
	}
}

func TestAnnotationsFit(t *testing.T) {
	var log bytes.Buffer
	s := actions.New(&log, none)
	s.Error("keyturn", strings.Repeat("é", 5000), "mend it")
	line := strings.TrimSpace(log.String())
	_, text, _ := strings.Cut(strings.TrimPrefix(line, "::error"), "::")
	if got := strings.ReplaceAll(text, "%0A", "\n"); len(got) > 4096 || !strings.HasSuffix(got, " …\nhint: mend it") {
		t.Errorf("the annotation has %d bytes and ends with %q", len(got), got[len(got)-30:])
	}
}

func TestMask(t *testing.T) {
	var log bytes.Buffer
	s := actions.New(&log, none)
	s.Mask(secret.New([]byte("{\n  \"key\": \"100%\"\n}\n")))
	s.Mask(secret.New([]byte("hunter2-and-more")))
	s.Mask(secret.New([]byte("hunter2-and-more")))
	s.Mask(secret.New([]byte("short")))
	s.Mask(secret.Value{})
	want := "::add-mask::\"key\": \"100%25\"\n::add-mask::hunter2-and-more\n"
	if log.String() != want {
		t.Errorf("masks are\n%s\nwant\n%s", log.String(), want)
	}
}

func TestUnknown(t *testing.T) {
	got := actions.Unknown([]string{"INPUT_COMMAND=plan", "INPUT_DRY-RUN=", "INPUT_DRYRUN=true", "PATH=/bin", "INPUT_X=", "INPUT_X=2"}, []string{"command", "dry-run"})
	if !slices.Equal(got, []string{"dryrun", "x"}) {
		t.Errorf("unknown inputs are %q", got)
	}
	s := actions.New(io.Discard, func(name string) string { return map[string]string{"INPUT_DRY-RUN": " true\n"}[name] })
	if got := s.Input("dry-run"); got != "true" {
		t.Errorf("the input is %q", got)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestBrokenLog(t *testing.T) {
	s := actions.New(broken{}, none)
	s.Error("keyturn", "lost", "")
	if _, err := fmt.Fprintln(s, "lost, too"); err == nil {
		t.Error("text that nobody got was written without an error")
	}
	if err := s.Resume(); err == nil || err.Error() != "nobody reads" {
		t.Errorf("Resume = %v", err)
	}
}

func TestHandler(t *testing.T) {
	var log bytes.Buffer
	s := actions.New(&log, none)
	l := slog.New(s.Handler(slog.LevelWarn)).With("credential", "orders-db")
	l.Info("not shown")
	l.Warn("an odd thing", "why", "it\nis")
	l.WithGroup("g").Error("worse", "n", 1)
	r := read(log.String())
	want := []string{
		`::warning title=keyturn::msg="an odd thing" credential=orders-db why="it\nis"`,
		`::warning title=keyturn::msg=worse credential=orders-db g.n=1`,
	}
	if !slices.Equal(r.commands, want) || len(r.text) != 0 {
		t.Errorf("the log is\n%s", log.String())
	}
	slog.New(s.Handler(slog.LevelDebug)).Debug("shown")
	if r := read(log.String()); len(r.text) != 1 || !strings.Contains(r.text[0], "msg=shown") {
		t.Errorf("the log of debugging is\n%s", log.String())
	}
}

// Several goroutines may speak at once, and every line stays whole.
func TestConcurrent(t *testing.T) {
	var log bytes.Buffer
	s := actions.New(&log, none)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				fmt.Fprintf(s, "text of %d\n", i)
				s.Notice("keyturn", fmt.Sprintf("notice of %d", i))
			}
		})
	}
	all.Wait()
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if r := read(log.String()); len(r.text) != 400 || len(r.commands) != 400 || r.stopped != "" {
		t.Errorf("%d lines of text and %d commands were read, want 400 of each", len(r.text), len(r.commands))
	}
}
