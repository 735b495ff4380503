package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// What the action takes and gives, sorted, for the test that holds action.yml
// against it.
var (
	ActionInputs  = inputs
	ActionOutputs = func() []string { return sorted(actionOutputs) }
)

// KeptHeads is keptHeads.
const KeptHeads = keptHeads

// NewRecords returns a journal's home as the core sees it.
func NewRecords(home journal.Home) rotation.Journal { return newRecords(home, journal.Entry{}) }

// Sections are those of the backends.
var Sections = sections

// ActionTakes says why a command does not take inputs, or nothing.
func ActionTakes(command string, inputs []string) error {
	if !slices.Contains(actionCommands, command) {
		return fmt.Errorf("%q is no command of the action", command)
	}
	root := Program{Stdout: io.Discard, Stderr: io.Discard}.app().root()
	found, _, err := root.Find(strings.Fields(command))
	if err != nil {
		return err
	}
	for _, name := range inputs {
		if found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
			return fmt.Errorf("%s takes no %s", command, name)
		}
	}
	return nil
}
