package certificate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

const hookTimeout = 2 * time.Minute

// inherited are the variables that a hook gets of ours, beside those that the settings
// name: others may hold secrets.
var inherited = []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"}

var tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// isToken reports whether a text looks like the token of a challenge (RFC 8555, section 8.1).
func isToken(text string) bool { return tokenForm.MatchString(text) && len(text) <= 256 }

// kind returns which challenge is answered.
func (a ACME) kind() string {
	if a.DNS01 != nil {
		return acme.ChallengeTypeDNS01
	}
	return acme.ChallengeTypeHTTP01
}

// prove shows whose the names of an order are: one after the other, since a record of a
// name and of *.name is the same one.
func (b acmeIssuer) prove(ctx context.Context, a *acmeServer, order acme.Order) error {
	for _, url := range order.Authorizations {
		authz, err := a.client.GetAuthorization(ctx, a.account, url)
		if err != nil {
			return wrap("reading what is to be shown", err)
		}
		if authz.Status != acme.StatusPending {
			continue
		}
		if err := b.proveOne(ctx, a, authz); err != nil {
			return err
		}
	}
	return nil
}

func (b acmeIssuer) proveOne(ctx context.Context, a *acmeServer, authz acme.Authorization) (err error) {
	c, ok := b.challengeOf(authz)
	if !ok {
		var offered []string
		for _, c := range authz.Challenges {
			offered = append(offered, c.Type)
		}
		return refused("write the other challenge", "the authority offers no %s for %s, only %s", b.settings.ACME.kind(), authz.IdentifierValue(), strings.Join(offered, ", "))
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hookTimeout)
		defer cancel()
		if gone := b.withdraw(ctx, c); gone != nil {
			b.options.Logger.WarnContext(ctx, "taking back the answer to a challenge", "name", authz.IdentifierValue(), "error", gone)
		}
	}()
	if err := b.present(ctx, c); err != nil {
		return err
	}
	if c, err = a.client.InitiateChallenge(ctx, a.account, c); err != nil {
		return shown(authz.IdentifierValue(), err)
	}
	if _, err = a.client.PollAuthorization(ctx, a.account, authz); err != nil {
		return shown(authz.IdentifierValue(), err)
	}
	return nil
}

// challengeOf returns the challenge of an authorization that is answered.
func (b acmeIssuer) challengeOf(authz acme.Authorization) (acme.Challenge, bool) {
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == b.settings.ACME.kind() })
	if i < 0 {
		return acme.Challenge{}, false
	}
	return authz.Challenges[i], true
}

// present has the answer to a challenge be found, and waits until it is.
func (b acmeIssuer) present(ctx context.Context, c acme.Challenge) error {
	s := b.settings.ACME
	if s.HTTP01 != nil && s.HTTP01.Directory != "" {
		return s.HTTP01.write(c)
	}
	if err := b.hook(ctx, "present", c); err != nil {
		return err
	}
	if s.DNS01 == nil || s.DNS01.Wait == "" {
		return nil
	}
	wait, err := time.ParseDuration(s.DNS01.Wait)
	if err != nil {
		return err
	}
	return remote.Pause(ctx, wait)
}

// withdraw takes the answer to a challenge back. What is not there is success.
func (b acmeIssuer) withdraw(ctx context.Context, c acme.Challenge) error {
	if h := b.settings.ACME.HTTP01; h != nil && h.Directory != "" {
		if !isToken(c.Token) {
			return errors.New("certificate: the token of a challenge is malformed")
		}
		if err := os.Remove(filepath.Join(h.Directory, c.Token)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return b.hook(ctx, "remove", c)
}

// write puts the answer where the web server finds it: as a whole, or not at all.
func (h HTTP01) write(c acme.Challenge) error {
	if !isToken(c.Token) {
		return errors.New("certificate: the token of a challenge is malformed")
	}
	hint := "Keyturn must be able to write there, and the web server to read"
	failed := func(err error) error {
		return rotation.Classify(rotation.Failed, hint, fmt.Errorf("certificate: answering a challenge: %w", err))
	}
	file, err := os.CreateTemp(h.Directory, ".keyturn-")
	if err != nil {
		return failed(err)
	}
	_, err = file.WriteString(c.KeyAuthorization)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(h.Directory, c.Token))
	}
	if err != nil {
		return failed(errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

// hook runs the program that answers challenges. What it prints goes nowhere: it could be
// anything. It is in a process group of its own, and ends with its time.
func (b acmeIssuer) hook(ctx context.Context, action string, c acme.Challenge) error {
	var argv, names []string
	env := map[string]string{"KEYTURN_ACTION": action, "KEYTURN_CHALLENGE": c.Type, "KEYTURN_NAME": c.Identifier.Value}
	if d := b.settings.ACME.DNS01; d != nil {
		argv, names = d.Hook, d.Env
		env["KEYTURN_RECORD"], env["KEYTURN_VALUE"] = c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()
	} else {
		argv, names = b.settings.ACME.HTTP01.Hook, b.settings.ACME.HTTP01.Env
		env["KEYTURN_PATH"], env["KEYTURN_VALUE"] = c.HTTP01ResourcePath(), c.KeyAuthorization
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{} // not nil, which would mean all of ours
	for _, name := range append(slices.Clone(inherited), names...) {
		if value := b.options.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it was ended: %w", ctx.Err())
		}
		return rotation.Classify(rotation.Failed, "run it by hand to see what it prints: Keyturn keeps nothing of it",
			fmt.Errorf("certificate: the hook %q (%s): %w", argv[0], action, err))
	}
	return nil
}
