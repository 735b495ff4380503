package testserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// DefaultHBA is the part of pg_hba.conf for connections over TCP: only with
// TLS, only with SCRAM-SHA-256.
const DefaultHBA = `hostssl all         all 0.0.0.0/0 scram-sha-256
hostssl replication all 127.0.0.1/32 scram-sha-256
`

// cleanPostgres ends the server below the folder $1 and removes the folder. A
// server that was stopped with SIGSTOP must go on to end. The lock file's lines
// are: process id, folder, start time, port, ….
const cleanPostgres = `
dir=$1
ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$dir/data"; }
if [ -f "$dir/data/postmaster.pid" ]; then
	read -r pid <"$dir/data/postmaster.pid"
	if ours "$pid"; then
		for stat in /proc/[0-9]*/stat; do
			read -r line <"$stat" || continue
			child=${line%% *} rest=${line##*) }
			set -- $rest
			[ "$2" = "$pid" ] && kill -CONT "$child"
		done 2>/dev/null
		kill -QUIT "$pid"; kill -CONT "$pid"
		n=0
		while ours "$pid" && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done
		if ours "$pid"; then kill -KILL "$pid"; fi
	fi
fi
rm -rf "$dir" || { sleep 1; rm -rf "$dir"; }
`

// findPostgres returns the folder of the newest server's programs and its version.
func findPostgres() (bin, version string, err error) {
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", "", err
	}
	slices.SortFunc(candidates, func(a, b string) int { return major(b) - major(a) })
	if path, err := exec.LookPath("postgres"); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range candidates {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			continue
		}
		_, version, _ = strings.Cut(strings.TrimSpace(string(out)), ") ")
		return filepath.Dir(path), version, nil
	}
	return "", "", fmt.Errorf("no PostgreSQL server below /usr/lib/postgresql or on the PATH, run .ci/install: %w", ErrMissing)
}

// major is the version in /usr/lib/postgresql/15/bin/postgres.
func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// serverUser is who the server runs as: PostgreSQL refuses to run as root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("finding a user for the server: neither postgres nor nobody exists")
}

// clusterTemplate returns a folder with an empty cluster of that version, made
// once and kept in the cache.
func clusterTemplate(ctx context.Context, bin, version string, owner *syscall.Credential) (template string, err error) {
	dir, err := cacheDir("postgres")
	if err != nil {
		return "", err
	}
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ()/~", r) {
			return '_'
		}
		return r
	}, version)
	template = filepath.Join(dir, "cluster1-"+name)
	if _, err := os.Stat(template); err == nil {
		return template, nil
	}
	tmp, err := tempDir("initdb")
	if err != nil {
		return "", err
	}
	// The finished copy gets its name in one step; whoever comes second loses and uses the first.
	unfinished, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	g, err := startGuard("folder", tmp, unfinished)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp), os.RemoveAll(unfinished))
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := initCluster(ctx, bin, tmp, owner); err != nil {
		return "", err
	}
	if err := copyTree(filepath.Join(tmp, "data"), filepath.Join(unfinished, "data"), nil); err != nil {
		return "", fmt.Errorf("keeping the empty cluster: %w", err)
	}
	if err := os.Rename(filepath.Join(unfinished, "data"), template); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", fmt.Errorf("keeping the empty cluster: %w", err)
	}
	return template, nil
}

// initCluster runs initdb for dir/data.
func initCluster(ctx context.Context, bin, dir string, owner *syscall.Credential) error {
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if owner != nil {
		if err := os.Chown(data, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	// Nobody has a password yet. This pg_hba.conf is never used: see Start.
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"),
		"-D", data, "-U", AdminUser, "-A", "trust", "--no-sync", "--wal-segsize=1", "-E", "UTF8", "--locale=C")
	cmd.Dir, cmd.Env = dir, environment(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
	if out, err := child.CombinedOutput(cmd); err != nil {
		return fmt.Errorf("running initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// environment is that of the server's programs: nothing of ours.
func environment(dir string) []string {
	return []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}

// copyCluster fills the data folder from a template.
func (p *Postgres) copyCluster(template string) error {
	if err := copyTree(template, p.path("data"), p.owner); err != nil {
		return fmt.Errorf("copying the empty cluster: %w", err)
	}
	return nil
}

// copyTree copies folders and regular files with their modes.
func copyTree(from, to string, owner *syscall.Credential) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			if err := os.MkdirAll(dst, info.Mode().Perm()); err != nil {
				return err
			}
		} else {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dst, data, info.Mode().Perm()); err != nil {
				return err
			}
		}
		if owner == nil {
			return nil
		}
		return os.Chown(dst, int(owner.Uid), int(owner.Gid))
	})
}

// listen are the addresses that the server listens on.
func (p *Postgres) listen() string {
	if p.opts.Netns != "" {
		return "0.0.0.0"
	}
	return strings.Join(append([]string{"127.0.0.1"}, p.opts.ListenAddresses...), ",")
}

// writeConf writes postgresql.conf.
func (p *Postgres) writeConf() error {
	settings := map[string]string{
		"listen_addresses":           p.listen(),
		"port":                       strconv.Itoa(p.port),
		"unix_socket_directories":    p.path("sock"),
		"password_encryption":        "scram-sha-256",
		"ssl":                        "on",
		"ssl_cert_file":              p.path("server.pem"),
		"ssl_key_file":               p.path("server.key"),
		"ssl_min_protocol_version":   "TLSv1.3",
		"fsync":                      "off", // the data lives as long as one test
		"full_page_writes":           "off",
		"autovacuum":                 "off", // a worker every moment, where there are hundreds of databases
		"max_connections":            "200",
		"shared_buffers":             "32MB",
		"wal_level":                  "replica",
		"log_line_prefix":            "%m [%p] %q%u@%d %a ",
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
		"dynamic_shared_memory_type": "mmap",
	}
	maps.Copy(settings, p.opts.Settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return p.writeFile("postgresql.conf", []byte(b.String()), 0o644)
}

// writeHBA writes pg_hba.conf.
func (p *Postgres) writeHBA(lines string) error {
	return p.writeFile("pg_hba.conf", []byte(lines), 0o644)
}

// writeCertificate writes the authority's and the server's certificate.
func (p *Postgres) writeCertificate() error {
	c := p.opts.Certificate
	if c == nil {
		c = &Certificate{Names: slices.Concat([]string{"localhost", "127.0.0.1"}, p.opts.ListenAddresses, p.opts.Names)}
	}
	cert, key, err := p.authority.Issue(*c)
	if err != nil {
		return err
	}
	return errors.Join(
		p.writeFile("ca.pem", p.authority.PEM, 0o644),
		p.writeFile("server.pem", cert, 0o644),
		p.writeFile("server.key", key, 0o600))
}

// writeFile writes a file below the server's folder, in one step, for its user.
func (p *Postgres) writeFile(name string, data []byte, mode fs.FileMode) error {
	tmp := p.path(name + ".new")
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	if p.owner != nil {
		if err := os.Chown(tmp, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
			return err
		}
	}
	return os.Rename(tmp, p.path(name))
}

// mkdir makes a folder that only the server's user may enter.
func (p *Postgres) mkdir(name string) error {
	if err := os.Mkdir(p.path(name), 0o700); err != nil {
		return err
	}
	if p.owner == nil {
		return nil
	}
	return os.Chown(p.path(name), int(p.owner.Uid), int(p.owner.Gid))
}

// lockFile returns the lines of postmaster.pid, trimmed.
func (p *Postgres) lockFile() []string {
	data, err := os.ReadFile(filepath.Join(p.path("data"), "postmaster.pid"))
	if err != nil {
		return nil
	}
	lines := strings.Split(string(data), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// tail is the end of the log, for errors.
func (p *Postgres) tail() string { return tailOf(p.LogFile()) }

// randomText is a password of 128 bits or more.
func randomText() string { return rand.Text() }
