package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/actions"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// journalPath returns where the journal is kept: what the configuration says,
// or a file in the user's state folder that is named after the configuration,
// so that two of them never share one by accident.
func (a *app) journalPath(cfg *config.Config) (string, error) {
	if cfg.Journal != "" {
		return cfg.Journal, nil
	}
	state := a.Getenv("XDG_STATE_HOME")
	if state == "" && a.Getenv("HOME") != "" {
		state = filepath.Join(a.Getenv("HOME"), ".local", "state")
	}
	if !filepath.IsAbs(state) {
		return "", usagef("name it in the configuration: journal: file:/var/lib/keyturn/journal.jsonl",
			"the journal has no place: neither HOME nor XDG_STATE_HOME is an absolute path")
	}
	name, err := journalName(a.configPath)
	if err != nil {
		return "", fmt.Errorf("naming the journal: %w", err)
	}
	return filepath.Join(state, "keyturn", name), nil
}

// journalName returns the name of a configuration's journal: that of the file,
// and the beginning of the SHA-256 of its path, with links resolved.
func journalName(configPath string) (string, error) {
	path, err := filepath.Abs(configPath)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(path))
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base)) + "-" + hex.EncodeToString(sum[:6]) + ".jsonl", nil
}

// open opens the journal. To look creates nothing: then one that is not there
// is no error and no journal, and the note says where it would be.
func (a *app) open(ctx context.Context, cfg *config.Config, look bool) (home, string, error) {
	if cfg.JournalGitHub {
		return a.openBranch(ctx, cfg, look)
	}
	path, err := a.journalPath(cfg)
	if err != nil {
		return nil, "", err
	}
	if err := a.lasting(path); err != nil {
		return nil, "", err
	}
	file, err := journal.Open(path, journal.Options{Create: !look, Now: a.Now,
		InActions: a.Getenv("GITHUB_ACTIONS") == "true", Workspace: a.Getenv("GITHUB_WORKSPACE")})
	if look && errors.Is(err, fs.ErrNotExist) {
		return nil, "there is no journal yet at " + path + ": nothing was adopted or rotated with it", nil
	}
	if err != nil {
		return nil, "", err
	}
	head, err := file.Head(ctx)
	if err != nil {
		return nil, "", err
	}
	note := ""
	if head.Seq == 0 {
		note = "the journal " + path + " is empty: nothing was adopted or rotated with it, or it was lost"
	}
	return file, note, nil
}

// lasting refuses a journal that would be gone with the container of an action.
func (a *app) lasting(path string) error {
	if a.step == nil {
		return nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	lost, err := actions.Lasting(os.DirFS("/"), path)
	if err != nil {
		return fmt.Errorf("the journal %s: %w", path, err)
	}
	if lost != "" {
		return usagef("run the program on the runner itself (run: keyturn …), or mount the folder of the journal into the container of the action",
			"the journal %s would be %s", path, lost)
	}
	return nil
}

// noJournal is what is read where there is no journal yet.
type noJournal struct{}

var _ rotation.Journal = noJournal{}

// Records implements [rotation.Journal].
func (noJournal) Each(context.Context, func(rotation.Record)) error { return nil }

// Append implements [rotation.Journal]: who only looks writes nothing.
func (noJournal) Append(context.Context, int64, func([]rotation.Record) ([]rotation.Record, error)) (int64, error) {
	return 0, errors.New("there is no journal, and this command makes none")
}

// look returns what a journal says, and who is at work, without writing
// anything. Nothing else is asked or read.
func (a *app) look(ctx context.Context, cfg *config.Config) (l *rotation.Ledger, note string, err error) {
	home, note, err := a.open(ctx, cfg, true)
	if err != nil {
		return nil, "", err
	}
	if home == nil {
		return rotation.NewLedger(), note, nil
	}
	l, err = rotation.ReadLedger(ctx, newRecords(home, journal.Entry{}))
	return l, note, err
}

// signature is what every entry of this run says of who wrote it.
func (a *app) signature(run string) journal.Entry {
	e := journal.Entry{Run: journal.Run{ID: run, PID: os.Getpid()}, Commit: a.Getenv("GITHUB_SHA")}
	e.Run.Host, _ = os.Hostname()
	e.Actor.Name = a.Getenv("USER")
	if id := a.Getenv("GITHUB_RUN_ID"); id != "" {
		e.Run.URL = a.Getenv("GITHUB_SERVER_URL") + "/" + a.Getenv("GITHUB_REPOSITORY") + "/actions/runs/" + id
		e.Run.Attempt, _ = strconv.Atoi(a.Getenv("GITHUB_RUN_ATTEMPT"))
		e.Actor.Name = a.starter()
		if a.Getenv("GITHUB_EVENT_NAME") == "schedule" {
			e.Actor.Name = "schedule" // GitHub names whoever touched its line last: that is nobody's act
		}
	}
	return e
}

// fingerprints returns what makes the fingerprints of values, with the key that
// the configuration names or else that of the journal. Who only looks makes none
// and needs no key of the journal.
func (a *app) fingerprints(ctx context.Context, cfg *config.Config, home journal.Home, look bool) (*secret.Fingerprinter, error) {
	if look && cfg.FingerprintKey.IsZero() {
		return nil, nil
	}
	key, err := a.fingerprintKey(ctx, cfg, home)
	if err != nil {
		return nil, fmt.Errorf("reading the fingerprint key: %w", err)
	}
	prints, err := secret.NewFingerprinter(key)
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("reading the fingerprint key: %w", err), hint: "make one: openssl rand -hex 32"}
	}
	return prints, nil
}

// read returns the entries of a journal. One that was read just now is not asked again.
func read(ctx context.Context, home journal.Home) (entries []journal.Entry, err error) {
	if err := eachEntry(ctx, home, func(e journal.Entry) { entries = append(entries, e) }); err != nil {
		return nil, err
	}
	return entries, nil
}

// eachEntry hands over what read returns, and keeps none of it.
func eachEntry(ctx context.Context, home journal.Home, take func(journal.Entry)) error {
	if far, ok := home.(branchHome); ok {
		for _, e := range far.Known() {
			take(e)
		}
		return nil
	}
	return journal.Each(ctx, home, take)
}

func (a *app) fingerprintKey(ctx context.Context, cfg *config.Config, home journal.Home) (secret.Value, error) {
	if !cfg.FingerprintKey.IsZero() {
		key, err := cfg.FingerprintKey.Read(a.Getenv)
		if err != nil {
			return key, &usageError{err: err, hint: "put it there, or leave fingerprint-key out of the configuration"}
		}
		return key, nil
	}
	var first []journal.Entry // the key is its
	err := eachEntry(ctx, home, func(e journal.Entry) {
		if len(first) == 0 {
			first = append(first, e)
		}
	})
	if err != nil {
		return secret.Value{}, err
	}
	key, ok := journal.FingerprintKey(first)
	if !ok {
		return secret.Value{}, usagef("set fingerprint-key in the configuration", "the journal has no fingerprint key of its own")
	}
	return key, nil
}
