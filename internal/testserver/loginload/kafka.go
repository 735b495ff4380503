package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// A kafkaLoad is a client that lives as long as the task, and produces or, with a group,
// consumes.
type kafkaLoad struct {
	brokers, user, passwordFile, topic, group string
	mechanism                                 string // SCRAM-SHA-256; anything else is SCRAM-SHA-512
	tell                                      string // a file that passwords are added to

	client  *kgo.Client
	records *os.File // the records that were acknowledged, or consumed, a line each
	next    int
}

// useKafka produces one record and waits until it is kept, or consumes what is there and
// says so to the group.
func (c config) useKafka(ctx context.Context, o *outcome.Login) error {
	k := c.kafka
	if k.client == nil {
		if err := c.openKafka(); err != nil {
			return err
		}
	}
	o.Session, o.Current = k.user, k.user
	if k.group != "" {
		return k.consume(ctx)
	}
	record := &kgo.Record{Topic: k.topic, Value: fmt.Appendf(nil, "%s/%d", c.task, k.next)}
	if err := k.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	k.next++
	_, err := fmt.Fprintf(k.records, "%s\n", record.Value)
	return err
}

// openKafka makes the client. It logs in when it is first used.
func (c config) openKafka() error {
	k := c.kafka
	password, err := readLine(k.passwordFile)
	if err != nil {
		return fmt.Errorf("%w: %w", errCredential, err)
	}
	if k.tell != "" {
		if err := appendLine(k.tell, password); err != nil {
			return err
		}
	}
	ca, err := os.ReadFile(c.caFile)
	if err != nil {
		return fmt.Errorf("reading KAFKA_CA_FILE: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	login := scram.Auth{User: k.user, Pass: password}.AsSha512Mechanism()
	if k.mechanism == "SCRAM-SHA-256" {
		login = scram.Auth{User: k.user, Pass: password}.AsSha256Mechanism()
	}
	name, kind := strings.ReplaceAll(c.task, "/", "_"), "produced"
	opts := []kgo.Opt{kgo.SeedBrokers(strings.Split(k.brokers, ",")...), kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}),
		kgo.SASL(login), kgo.ProducerLinger(0)}
	if k.group != "" {
		kind = "consumed"
		opts = append(opts, kgo.ConsumerGroup(k.group), kgo.ConsumeTopics(k.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(500*time.Millisecond))
	}
	if k.records, err = os.OpenFile(filepath.Join(c.dir, name+"."+kind), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	k.client, err = kgo.NewClient(opts...)
	return err
}

// consume takes what comes within a moment. No other member takes it too: the group is not
// balanced anew before it is committed.
func (k *kafkaLoad) consume(ctx context.Context) error {
	if err := k.client.Ping(ctx); err != nil { // a poll says nothing of a login that is refused
		return err
	}
	moment, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	fetches := k.client.PollFetches(moment)
	defer k.client.AllowRebalance()
	var errs []error
	fetches.EachError(func(_ string, _ int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
	})
	fetches.EachRecord(func(r *kgo.Record) {
		_, err := fmt.Fprintf(k.records, "%s\n", r.Value)
		errs = append(errs, err)
	})
	return errors.Join(append(errs, k.client.CommitUncommittedOffsets(ctx))...)
}

// appendLine adds a line to a file.
func appendLine(name, line string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}
