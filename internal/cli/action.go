package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/actions"
)

// actionWord is what the action hands to the program, and nobody types.
const actionWord = "action"

// actionCommands are what the action runs: the commands that ask nothing of a person.
var actionCommands = []string{"prepare", "validate", "cutover", "cleanup", "rotate", "rollback", "revoke", "plan", "status", "doctor", "check", "adopt", "audit verify", "audit export", "approvals", "propose", "remind"}

// actionFlags are the inputs that are flags of commands, under the same names.
// Those that are switches take true or false.
var actionFlags = map[string]struct{ isSwitch bool }{
	"config": {}, "reason": {}, "format": {}, "break-glass": {}, "ticket": {}, "force": {}, "plan": {}, "mode": {},
	"due": {true}, "all": {true}, "wait": {true}, "dry-run": {true}, "take-over": {true}, "emergency": {true}, "strict": {true}, "verbose": {true}, "repair": {true}, "report": {true},
}

// action runs the command that the inputs of a step name, in this process, and
// answers as a step of a job does. It returns the exit code.
func (a *app) action(ctx context.Context) int {
	if !actions.Inside(a.Getenv) {
		return a.conclude(usagef("on a command line, name a command: keyturn --help", "keyturn %s is what the GitHub action runs", actionWord))
	}
	step := actions.New(a.Stdout, a.Getenv)
	var printed bytes.Buffer // what the command says, without its progress
	inner := a.Program
	inner.Stdout, inner.Stderr = io.MultiWriter(step, &printed), step
	b := inner.app()
	b.step = step
	var code int
	if args, err := a.words(step, b.root()); err != nil {
		b.Args, code = []string{actionWord}, b.conclude(err)
	} else {
		b = inner.app()
		b.step, b.Args = step, args
		code = b.run(ctx)
	}
	code = b.answer(ctx, code, printed.String())
	if err := step.Resume(); err != nil && code == exitDone {
		code = exitFailed
	}
	return code
}

// words returns the command line that the inputs stand for.
func (a *app) words(step *actions.Step, root *cobra.Command) ([]string, error) {
	environ := os.Environ
	if a.Environ != nil {
		environ = a.Environ
	}
	if unknown := actions.Unknown(environ(), inputs()); len(unknown) > 0 {
		return nil, usagef("inputs: "+strings.Join(inputs(), ", "), "the action has no input %q", unknown[0])
	}
	command := strings.Join(strings.Fields(step.Input("command")), " ")
	if !slices.Contains(actionCommands, command) {
		return nil, usagef("command: one of "+strings.Join(actionCommands, ", "), "input command: %q is no command of the action", command)
	}
	words := strings.Fields(command)
	found, _, err := root.Find(words)
	if err != nil {
		return nil, err
	}
	args := words
	for _, name := range sortedKeys(actionFlags) {
		value := step.Input(name)
		if actionFlags[name].isSwitch {
			on, err := boolean(name, value)
			if err != nil {
				return nil, err
			}
			if value = ""; on {
				value = "true"
			}
		}
		if value == "" {
			continue
		}
		if found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
			return nil, usagef("leave it out, or set it in the step of a command that has it", "input %s: %s takes no %s", name, command, name)
		}
		args = append(args, "--"+name+"="+value)
	}
	names := strings.FieldsFunc(step.Input("credential"), func(r rune) bool { return unicode.IsSpace(r) || r == ',' })
	if len(names) > 0 && slices.Contains(args, "--due=true") {
		return nil, usagef("name credentials, or ask for those that are due", "inputs credential and due exclude each other")
	}
	if len(names) > 0 && words[0] == "audit" {
		return nil, usagef("leave it out: the record is verified as a whole", "input credential: %s takes none", command)
	}
	return append(append(args, "--"), names...), nil
}

// inputs are the names of all inputs of the action.
func inputs() []string {
	return sorted(append(sortedKeys(actionFlags), "command", "credential", inputAppID, inputAppKey, inputToken))
}

// The inputs that say as whom GitHub is asked.
const (
	inputAppID  = "app-id"
	inputAppKey = "private-key"
	inputToken  = "github-token"
)

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }

// boolean reads a switch as YAML writes it; "" is off.
func boolean(name, value string) (bool, error) {
	switch value {
	case "true", "True", "TRUE":
		return true, nil
	case "", "false", "False", "FALSE":
		return false, nil
	}
	return false, usagef("write true or false", "input %s: %q is neither true nor false", name, value)
}
