// Package cli is the command line: commands, flags, and the wiring of
// configuration, journal, backends and targets to the core. It is the only
// package that names a concrete backend or target.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keyturn/keyturn/internal/actions"
	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/notify"
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

	// Environ lists the environment, for the inputs of the action.
	Environ func() []string

	// Between is the least time between two writes to GitHub; 0 is a second, and
	// less than nothing is none, for tests.
	Between time.Duration

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
	out        *printer // Stdout
	progress   *progress
	cfg        *config.Config    // once it was read
	step       *actions.Step     // nil outside of the action
	hub        *hub              // nil until GitHub is asked
	borrowed   []*githubapp.App  // for credentials that GitHub gives out
	urgent     bool              // it must be done, whether GitHub answers or not
	asked      bool              // GitHub was asked to sign who does this
	signed     *approval.Claims  // what it signed; nil: nothing
	seen       []rotation.Record // of a journal on GitHub, when it was used last

	// Of this run, for the one document of --output json.
	phases   []rotation.Summary
	adopted  []rotation.Version
	revoked  []revocation
	failures []failure

	notices  []notify.Notice // of which people are told at the end
	measured measured        // for whoever wants to know

	// Of this run, for what the action answers.
	planned    []rotation.Plan
	events     []rotation.Event
	complaints []complaint
}

// Run runs the command that the arguments name and returns the exit code.
func (p Program) Run(ctx context.Context) int {
	a := p.app()
	if len(p.Args) > 0 && p.Args[0] == actionWord {
		return a.action(ctx)
	}
	return a.run(ctx)
}

func (p Program) app() *app {
	a := &app{Program: p, out: &printer{w: p.Stdout}}
	a.Stdout = a.out
	if a.Getenv == nil {
		a.Getenv = os.Getenv
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	a.progress = &progress{w: a.Stderr, terminal: a.interactive()}
	return a
}

func (a *app) run(ctx context.Context) int {
	root := a.root()
	root.SetArgs(a.Args)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	begun := a.Now()
	cmd, err := root.ExecuteContextC(ctx)
	a.leave(ctx)
	if err != nil && ctx.Err() != nil {
		// Whatever failed last, failed because of that.
		err = errors.Join(context.Canceled, err)
	}
	code := a.conclude(err)
	a.handOn(cmd, code, begun)
	return code
}

// exitStatus ends the program with a code and no message: all is said.
type exitStatus int

func (exitStatus) Error() string { return "" }

// conclude writes what is left to say: an error in words on stderr, unless that
// was done, and, if the user asked for it, the run as one JSON document. It
// returns the exit code.
func (a *app) conclude(err error) int {
	code := exitCode(err)
	_, said := err.(exitStatus)
	if a.output == "json" {
		a.document(err, code, said)
	}
	if err != nil && !said {
		a.complain(err)
	}
	if a.out.err != nil {
		a.complain(fmt.Errorf("writing the output: %w", a.out.err))
		if code == exitDone {
			code = exitFailed
		}
	}
	return code
}

// document writes a run as one JSON document, if there is anything in it.
func (a *app) document(err error, code int, said bool) {
	doc := map[string]any{}
	if len(a.phases) > 0 {
		doc["phases"] = a.phases
	}
	if len(a.adopted) > 0 {
		doc["adopted"] = a.adopted
	}
	if len(a.revoked) > 0 {
		doc["revoked"] = a.revoked
	}
	if len(a.failures) > 0 {
		doc["failures"] = a.failures
	}
	if err != nil && !said {
		doc["error"], doc["hint"] = err.Error(), hintFor(err)
	}
	if len(doc) > 0 {
		doc["exit"] = code
		a.json(doc)
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
			if a.step != nil {
				a.log = slog.New(a.step.Handler(level))
			}
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", ".github/keyturn.yml", "the configuration `file`")
	flags.StringVarP(&a.output, "output", "o", "text", "`text` or json")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "diagnostics on stderr")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		a.output = outputOf(a.Args) // what stands behind the mistake was not read
		return &usageError{err: err, hint: "see: keyturn --help"}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(a.initCommand(), a.doctorCommand(), a.checkCommand(), a.planCommand(), a.statusCommand())
	root.AddCommand(a.phaseCommands()...)
	root.AddCommand(a.setupCommands()...)
	a.completeCredentials(root.Commands()...)
	root.AddCommand(a.probeCommand(), a.relayCommand(), a.auditCommand(), a.approvalsCommand(), a.proposeCommand(), a.guardCommand(), a.remindCommand(), a.withTokenCommand(), a.schemaCommand(), a.completionCommand(), a.versionCommand())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("see: keyturn --help", "unknown command %q", args[0])
	}
	return nil
}

// outputOf returns the output that arguments ask for, wherever it stands.
func outputOf(args []string) string {
	for i, arg := range args {
		switch {
		case arg == "--":
			return "text"
		case arg == "--output=json", arg == "-ojson", arg == "-o=json":
			return "json"
		case (arg == "--output" || arg == "-o") && i+1 < len(args) && args[i+1] == "json":
			return "json"
		}
	}
	return "text"
}

// interactive reports whether the progress is read by a person at a terminal.
func (a *app) interactive() bool {
	f, ok := a.Stderr.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && a.Getenv("CI") == ""
}
