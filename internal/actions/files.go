package actions

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	outputFile  = "GITHUB_OUTPUT"
	summaryFile = "GITHUB_STEP_SUMMARY"

	mostSummary = 1 << 20 // bytes of a step's summary; GitHub shows none that is longer
)

// Output sets an output of the step. The value is written between lines with a
// random delimiter, so that no value can be read as another output.
func (s *Step) Output(name, value string) error {
	if name == "" || strings.ContainsAny(name, "\r\n=<") {
		return fmt.Errorf("setting an output: the name %q has a character that it must not have", name)
	}
	entry, err := delimited(name, value)
	if err != nil {
		return fmt.Errorf("setting the output %s: %w", name, err)
	}
	if err := s.add(outputFile, entry); err != nil {
		return fmt.Errorf("setting the output %s: %w", name, err)
	}
	return nil
}

// delimited is an entry of a file of outputs.
func delimited(name, value string) (string, error) {
	delimiter := "keyturn_" + rand.Text()
	if strings.Contains(name, delimiter) || strings.Contains(value, delimiter) {
		return "", errors.New("the value has the random delimiter in it") // 128 bits say that it does not
	}
	return name + "<<" + delimiter + "\n" + value + "\n" + delimiter + "\n", nil
}

// Summary adds Markdown to the summary of the step. What would make it longer
// than GitHub shows is cut at the end of a line, and that is said.
func (s *Step) Summary(markdown string) error {
	const cut = "\n\n(cut: the summary of a step has 1 MiB; the log has the rest)\n"
	was := int64(0)
	if info, err := os.Stat(s.getenv(summaryFile)); err == nil {
		was = info.Size()
	}
	if room := int(mostSummary - was); len(markdown) > room {
		head := markdown[:strings.LastIndexByte(markdown[:max(0, room-len(cut))], '\n')+1]
		if head == "" && was > 0 {
			return nil // it is full, and says so
		}
		markdown = head + cut
	}
	if err := s.add(summaryFile, markdown); err != nil {
		return fmt.Errorf("writing the step summary: %w", err)
	}
	return nil
}

// add appends to a file that the runner names by a variable. A runner that
// names none wants none.
func (s *Step) add(variable, text string) (err error) {
	path := s.getenv(variable)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(text)
	return err
}
