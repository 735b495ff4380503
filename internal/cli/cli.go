// Package cli is the command line: commands, flags, and the wiring of
// configuration, journal, backends and targets to the core. It is the only
// package that names a concrete backend or target.
package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A Program is one run of keyturn, with everything that it takes from the
// process around it. The zero value of a seam means the real thing.
type Program struct {
	Args   []string
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	Now    func() time.Time

	// Hook is called around every record and effect; crash tests stop there.
	Hook func(at string)
}

// app is the state that the commands of a run share.
type app struct {
	Program
	configPath string
	output     string
	verbose    bool
	log        *slog.Logger
	phases     []rotation.Summary // of this run, for --output json
}

// Run runs the command that the arguments name and returns the exit code.
func (p Program) Run(ctx context.Context) int {
	a := &app{Program: p}
	if a.Getenv == nil {
		a.Getenv = os.Getenv
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	root := a.root()
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		// Whatever failed last, failed because of that.
		err = errors.Join(context.Canceled, err)
	}
	code := exitCode(err)
	done, ended := errors.AsType[exitStatus](err)
	if ended = ended && ctx.Err() == nil; ended {
		code = int(done)
	}
	a.conclude(err, code, ended)
	return code
}

// exitStatus ends the program with a code and no message.
type exitStatus int

func (exitStatus) Error() string { return "" }

// conclude writes what is left to say: an error in words on stderr, unless that
// was done, and, if the user asked for it, the run as one JSON document.
func (a *app) conclude(err error, code int, said bool) {
	if a.output == "json" && (len(a.phases) > 0 || err != nil && !said) {
		doc := map[string]any{"exit": code}
		if len(a.phases) > 0 {
			doc["phases"] = a.phases
		}
		if err != nil && !said {
			doc["error"], doc["hint"] = err.Error(), hintOf(err)
		}
		_ = a.json(doc) // a closed stdout is no reason for another exit code
	}
	if err != nil && !said {
		complain(a.Stderr, err)
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "keyturn",
		Short:         "Rotate the credentials of services, with no second of downtime",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.output != "text" && a.output != "json" {
				return usagef("write --output text or --output json", "unknown output %q", a.output)
			}
			level := slog.LevelWarn
			if a.verbose {
				level = slog.LevelDebug
			}
			a.log = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level}))
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", ".github/keyturn.yml", "the configuration `file`")
	flags.StringVarP(&a.output, "output", "o", "text", "`text` or json")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "diagnostics on stderr")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err: err, hint: "see: keyturn --help"} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(a.lookCommands()...)
	root.AddCommand(a.phaseCommands()...)
	root.AddCommand(a.setupCommands()...)
	root.AddCommand(a.probeCommand(), a.auditCommand(), a.versionCommand())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("see: keyturn --help", "unknown command %q", args[0])
	}
	return nil
}

// interactive reports whether the progress is read by a person at a terminal.
func (a *app) interactive() bool {
	f, ok := a.Stderr.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && a.Getenv("CI") == ""
}
