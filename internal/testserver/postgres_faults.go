package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SetHBA replaces pg_hba.conf and makes the server read it. New connections
// follow it when SetHBA returns. See [DefaultHBA].
func (p *Postgres) SetHBA(lines string) error {
	if err := p.writeHBA(lines); err != nil {
		return fmt.Errorf("changing pg_hba.conf: %w", err)
	}
	return p.reload("changing pg_hba.conf")
}

// ResetHBA undoes SetHBA.
func (p *Postgres) ResetHBA() error { return p.SetHBA("local all all scram-sha-256\n" + DefaultHBA) }

// Set changes settings and makes the server read them. Those that need a
// restart (max_connections) take effect at the next [Postgres.Restart].
func (p *Postgres) Set(settings map[string]string) error {
	merged := maps.Clone(p.opts.Settings)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, settings)
	p.opts.Settings = merged
	if err := p.writeConf(); err != nil {
		return fmt.Errorf("changing PostgreSQL's settings: %w", err)
	}
	return p.reload("changing PostgreSQL's settings")
}

// SetCertificate gives the server another certificate of the same authority,
// for new connections.
func (p *Postgres) SetCertificate(c Certificate) error {
	p.opts.Certificate = &c
	if err := p.writeCertificate(); err != nil {
		return fmt.Errorf("changing PostgreSQL's certificate: %w", err)
	}
	return p.reload("changing PostgreSQL's certificate")
}

// reload sends SIGHUP and waits until it was taken.
func (p *Postgres) reload(doing string) error {
	if p.process == nil || !p.process.running() {
		return nil // the next start reads it
	}
	before, err := p.LogText()
	if err != nil {
		return err
	}
	if err := p.process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.waitLogged(ctx, len(before), "received SIGHUP, reloading configuration files"); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// It says so before it reads. But while it reads it lets nobody in.
	if err := p.waitAnswer(ctx); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	text, err := p.LogText()
	if err != nil {
		return err
	}
	if fresh := text[len(before):]; strings.Contains(fresh, "contains errors") || strings.Contains(fresh, "was not reloaded") {
		return fmt.Errorf("%s: the server refused it: %s", doing, p.tail())
	}
	return nil
}

// waitLogged waits until the log says something after its first bytes.
func (p *Postgres) waitLogged(ctx context.Context, from int, said string) error {
	for {
		text, err := p.LogText()
		if err != nil {
			return err
		}
		if strings.Contains(text[from:], said) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q in the server's log: %w", said, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// waitAnswer waits until the server answers a new connection, without a trace in
// its log: it is asked for TLS over the socket, where there is none.
func (p *Postgres) waitAnswer(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(p.path("sock"), ".s.PGSQL."+strconv.Itoa(p.port)))
	if err != nil {
		return fmt.Errorf("waiting for the server's answer: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("waiting for the server's answer: %w", err)
	}
	sslRequest := []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f} // its length, and 80877103
	answer := make([]byte, 1)
	_, err = conn.Write(sslRequest)
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil {
		return fmt.Errorf("waiting for the server's answer: %w", err)
	}
	return nil
}

// Pause stops the server and all of its processes with SIGSTOP: connections
// hang, as if the machine had gone silent. Remove works on a paused server.
func (p *Postgres) Pause() error {
	if p.process == nil || !p.process.running() {
		return errors.New("pausing PostgreSQL: it is not running")
	}
	// The first process goes first, so that it starts no more.
	if err := syscall.Kill(p.process.pid(), syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pausing PostgreSQL: %w", err)
	}
	return p.signalChildren(syscall.SIGSTOP)
}

// Resume undoes Pause.
func (p *Postgres) Resume() error {
	if p.process == nil || !p.process.running() {
		return errors.New("resuming PostgreSQL: it is not running")
	}
	if err := p.signalChildren(syscall.SIGCONT); err != nil {
		return err
	}
	if err := syscall.Kill(p.process.pid(), syscall.SIGCONT); err != nil {
		return fmt.Errorf("resuming PostgreSQL: %w", err)
	}
	return nil
}

// signalChildren signals every process of the server but the first.
func (p *Postgres) signalChildren(s syscall.Signal) error {
	pids, err := children(p.process.pid())
	if err != nil {
		return fmt.Errorf("finding the server's processes: %w", err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signalling the server's process %d: %w", pid, err)
		}
	}
	return nil
}

// children returns the ids of the processes that pid has started.
func children(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// Exec runs statements as the superuser in the database, one after the other,
// each in a transaction of its own.
func (p *Postgres) Exec(ctx context.Context, database string, statements ...string) error {
	conn, err := p.Connect(ctx, AdminUser, p.password, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("running a statement in %q: %w", database, err)
		}
	}
	return nil
}
