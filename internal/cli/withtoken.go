package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/secret"
)

// handedOver stands in the arguments of a command for the path of the file.
const handedOver = "{}"

// giveUp is how long a command that was told to end may take.
const giveUp = 10 * time.Second

func (a *app) withTokenCommand() *cobra.Command {
	var repositories, permissions []string
	cmd := &cobra.Command{
		Use:   "with-token --repository OWNER/NAME --permission NAME=LEVEL -- COMMAND … {} …",
		Short: "Run a command with a token of the App in a file that is only in memory, such as an image's build",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withToken(cmd.Context(), repositories, permissions, args)
		},
	}
	cmd.Flags().StringArrayVar(&repositories, "repository", nil, "that the token may use, `OWNER/NAME`; may be given again")
	cmd.Flags().StringArrayVar(&permissions, "permission", nil, "that the token has, `NAME=LEVEL`, such as contents=read; may be given again")
	return cmd
}

var (
	lentRepository = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$`)
	lentPermission = regexp.MustCompile(`^([a-z][a-z_]*)=(read|write|admin)$`)
)

// withToken makes a token, runs the command, and revokes the token when that has ended,
// however it did. The token stands in no argument, no environment and no file of a disk.
func (a *app) withToken(ctx context.Context, repositories, permissions, args []string) error {
	const example = "keyturn with-token --repository acme/config --permission contents=read -- docker build --secret id=github_token,src={} ."
	if a.output == "json" {
		return usagef("leave --output out: what is printed is the command's", "with-token has no output of its own")
	}
	if len(args) == 0 || !strings.Contains(strings.Join(args[1:], "\x00"), handedOver) {
		return usagef(example, "the command has no {} in its arguments, where the path of the token's file goes")
	}
	owner, names, err := lent(repositories)
	if err != nil {
		return err
	}
	rights := map[string]string{}
	for _, p := range permissions {
		m := lentPermission.FindStringSubmatch(p)
		if m == nil {
			return usagef("--permission contents=read", "a permission is not NAME=LEVEL, with read, write or admin")
		}
		rights[m[1]] = m[2]
	}
	if len(rights) == 0 {
		return usagef("--permission contents=read", "nothing says what the token may do")
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	app, err := a.borrow(owner, names[0], ownIdentity(cfg))
	if err != nil {
		return err
	}
	token, err := app.Issue(ctx, names, rights)
	if err != nil {
		return fmt.Errorf("making a token for %s: %w", strings.Join(repositories, ", "), err)
	}
	file, err := inMemory("keyturn-token", token.Token.Reveal())
	if err == nil {
		err = a.runWith(ctx, cfg, args, file)
		_ = file.Close() // it is memory
	}
	if failed := a.takeBack(ctx, app, token); failed != nil {
		err = errors.Join(err, failed)
	}
	token.Token.Wipe()
	return err
}

// ownIdentity is as whom the whole configuration asks.
func ownIdentity(cfg *config.Config) config.GitHub {
	if cfg.GitHub == nil {
		return config.GitHub{}
	}
	return config.GitHub{App: cfg.GitHub.App, Token: cfg.GitHub.Token}
}

// lent parts the repositories of a token, which are of one owner.
func lent(repositories []string) (owner string, names []string, err error) {
	const hint = "--repository acme/config"
	for _, r := range repositories {
		if !lentRepository.MatchString(r) {
			return "", nil, usagef(hint, "a repository is not OWNER/NAME")
		}
		of, name, _ := strings.Cut(r, "/")
		if owner != "" && !strings.EqualFold(of, owner) {
			return "", nil, usagef("run it once for each owner", "a token is for repositories of one owner")
		}
		owner, names = of, append(names, name)
	}
	if len(names) == 0 {
		return "", nil, usagef(hint, "no repository is named: a token for all is not made")
	}
	return owner, names, nil
}

// takeBack revokes the token, also when the run was cancelled.
func (a *app) takeBack(ctx context.Context, app *githubapp.App, token githubapp.Issued) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUp)
	defer cancel()
	if err := app.Revoke(ctx, token.Token); err != nil {
		return fmt.Errorf("the token could not be revoked, and ends by itself %s: %w", clock(token.Ends), err)
	}
	return nil
}

// withoutSecrets is the environment of the command: ours, without the secrets of the
// configuration.
func (a *app) withoutSecrets(cfg *config.Config) []string {
	environ := os.Environ
	if a.Environ != nil {
		environ = a.Environ
	}
	kept := []string{}
	hidden := sources(reflect.ValueOf(cfg), nil)
	for _, entry := range environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(hidden, func(s secret.Source) bool { return s.Env == name }) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// runWith runs the command with the path of the file in its arguments. The program's
// exit code becomes ours.
func (a *app) runWith(ctx context.Context, cfg *config.Config, args []string, file *os.File) error {
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
	words := make([]string, len(args))
	for i, w := range args {
		words[i] = w
		if i > 0 {
			words[i] = strings.ReplaceAll(w, handedOver, path)
		}
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.Stdout, a.Stderr
	cmd.Env = a.withoutSecrets(cfg)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = giveUp
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		if code := ended.ExitCode(); code > 0 {
			return exitStatus(code)
		}
		return fmt.Errorf("%s: %s", words[0], ended.ProcessState)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return usagef("name a program in PATH, or by its path", "running %s: %w", words[0], err)
	}
	return nil
}
