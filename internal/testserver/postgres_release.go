package testserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// releases is the folder, below this repository's root, that names the releases of
// PostgreSQL which servers can be of beside the machine's own.
const releases = "tools/postgres"

// findRelease returns the folder that holds a release of PostgreSQL, such as "16",
// with bin, lib and share. All releases are fetched at once, by npm and as its lock
// file has them, into the user's cache.
func findRelease(ctx context.Context, release string) (string, error) {
	dir, err := fetchReleases(ctx)
	if err != nil {
		return "", fmt.Errorf("fetching the releases of PostgreSQL in %s: %w", releases, err)
	}
	cpu := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	native := filepath.Join(dir, "node_modules", "postgres-"+release+"-"+cpu, "native")
	if _, err := os.Stat(native); err != nil {
		return "", fmt.Errorf("no PostgreSQL %s for %s in %s: %w", release, cpu, releases, ErrMissing)
	}
	return native, nil
}

func fetchReleases(ctx context.Context) (string, error) {
	return FetchNPM(ctx, releases, "postgres-releases", func(fresh string) error {
		packages, err := filepath.Glob(filepath.Join(fresh, "node_modules", "postgres-*"))
		if err != nil {
			return err
		}
		// What a package would run is not run, but for the one script, which makes the
		// links that a package cannot hold.
		for _, p := range packages {
			if err := run(ctx, p, "node", filepath.Join("scripts", "hydrate-symlinks.js")); err != nil {
				return err
			}
		}
		return nil
	})
}

// installRelease copies a release to where the server's user may run it.
func (p *Postgres) installRelease(ctx context.Context) error {
	native, err := findRelease(ctx, p.opts.Release)
	if err != nil {
		return err
	}
	to := filepath.Join(p.dir, "release")
	if said, err := child.CombinedOutput(exec.CommandContext(ctx, "cp", "-a", native, to)); err != nil {
		return fmt.Errorf("copying PostgreSQL %s: %w: %s", p.opts.Release, err, bytes.TrimSpace(said))
	}
	p.bin = filepath.Join(to, "bin")
	out, err := exec.CommandContext(ctx, filepath.Join(p.bin, "postgres"), "--version").Output()
	if err != nil {
		return err
	}
	_, version, _ := bytes.Cut(bytes.TrimSpace(out), []byte(") "))
	p.version = string(version)
	return nil
}

// Version is what the server's program says of its version, such as "16.14".
func (p *Postgres) Version() string { return p.version }
