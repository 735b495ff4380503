package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// A load is the endless row of logins.
type load struct {
	config config
	health health
	final  outcome.Final
}

func newLoad(c config) *load {
	return &load{config: c, health: health{file: c.healthFile, unhealthyUser: c.unhealthyUser}, final: outcome.Final{Task: c.task, Final: true}}
}

// run logs in until ctx ends, and then writes the totals. The login that is
// under way then is finished, and counts.
func (l *load) run(ctx context.Context) error {
	out, err := l.open()
	if err != nil {
		return err
	}
	if l.config.tls != nil {
		stop, err := l.config.tls.serve()
		if err != nil {
			return err
		}
		defer stop()
	}
	ticks := time.NewTicker(l.config.every)
	defer ticks.Stop()
	for ctx.Err() == nil {
		o := l.config.login(context.WithoutCancel(ctx))
		if o.OK {
			l.final.OK++
		} else {
			l.final.Failed++
		}
		if err := write(out, o); err != nil {
			return err
		}
		if err := l.health.note(o); err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
	}
	if k := l.config.kafka; k != nil && k.client != nil {
		k.client.CloseAllowingRebalance() // another task takes what this one has read
	}
	return write(out, l.final)
}

// open opens the standard output and the task's file.
func (l *load) open() (io.Writer, error) {
	if l.config.dir == "" {
		return os.Stdout, nil
	}
	name := strings.Map(func(r rune) rune {
		if r == '/' {
			return '_'
		}
		return r
	}, l.config.task)
	file, err := os.OpenFile(filepath.Join(l.config.dir, name+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the file for the outcomes: %w", err)
	}
	return io.MultiWriter(file, os.Stdout), nil
}

// write writes one line.
func write(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("writing an outcome: %w", err)
	}
	return nil
}

// login tries one login with the credential as it is mounted now.
func (c config) login(ctx context.Context) outcome.Login {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	start := time.Now()
	o := outcome.Login{Task: c.task, Time: start.UTC()}
	err := c.try(ctx, &o)
	o.Took = float64(time.Since(start).Microseconds()) / 1000
	if err != nil {
		o.Code, o.Error = classify(err)
		return o
	}
	o.OK = true
	return o
}

// errCredential marks a credential that could not be read.
var errCredential = errors.New("reading the credential")

// try opens a connection, asks who it is, and closes it.
func (c config) try(ctx context.Context, o *outcome.Login) error {
	if c.kafka != nil {
		return c.useKafka(ctx, o)
	}
	if c.consul != "" {
		return c.useConsul(ctx, o)
	}
	if c.tls != nil {
		return c.tls.use(ctx, o)
	}
	if c.vault != "" {
		return c.useVault(ctx, o)
	}
	config, err := c.connConfig()
	if err != nil {
		return fmt.Errorf("%w: %w", errCredential, err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, "SELECT session_user, current_user", pgx.QueryExecModeSimpleProtocol).Scan(&o.Session, &o.Current)
}

// classify gives an error its code and a message without any value.
func classify(err error) (code, message string) {
	if code, message, ok := classifyRefusal(err); ok {
		return code, message
	}
	if kind, ok := errors.AsType[*kerr.Error](err); ok {
		return kind.Message, kind.Description
	}
	var pg *pgconn.PgError
	var network net.Error
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errCredential):
		return "credential", err.Error()
	case errors.As(err, &pg):
		return pg.Code, pg.Message
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout", "no answer in time"
	case errors.As(err, &verification), errors.As(err, &record), errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid):
		return "tls", "the server's certificate or its TLS was refused"
	}
	return "connect", "no connection: " + innermost(err).Error()
}

// innermost is the first cause: a system call's word.
func innermost(err error) error {
	for {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			if len(e.Unwrap()) == 0 {
				return err
			}
			err = e.Unwrap()[0]
		default:
			return err
		}
	}
}
