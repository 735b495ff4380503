package testserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// A Kafka is a cluster of real Kafka brokers on loopback, each of them a controller too. What
// services connect to speaks TLS and SCRAM, with certificates of the cluster's own authority.
// Its authorizer denies what no rule allows.
type Kafka struct {
	dir, jars string
	flags     []string // of the Java machine, beside the usual ones
	authority *Authority
	brokers   []*kafkaBroker
	root      string // password of the super user "root", who logs in where brokers do
	host      string // by which services reach them; "": 127.0.0.1
	netns     string // that they run in; "": ours
	more      []string
}

type kafkaBroker struct {
	dir                             string
	tls, one, internal, controllers int // ports
	process                         *process
}

// NewKafka starts so many brokers as long as the test runs. More are lines of their configuration.
func NewKafka(t testing.TB, brokers int, more ...string) *Kafka {
	t.Helper()
	return newKafka(t, &Kafka{dir: t.TempDir(), more: more}, brokers)
}

// NewKafkaIn starts brokers in a network namespace, in which a name leads to them: they advertise it.
func NewKafkaIn(t testing.TB, netns, host string, brokers int) *Kafka {
	t.Helper()
	return newKafka(t, &Kafka{dir: t.TempDir(), netns: netns, host: host}, brokers)
}

func newKafka(t testing.TB, k *Kafka, brokers int) *Kafka {
	t.Helper()
	t.Cleanup(k.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // it may be fetched first
	defer cancel()
	Require(t, k.fetchAndStart(ctx, brokers))
	return k
}

// A SharedKafka is one cluster for all tests of a package, as [SharedEngine] is. Tests that
// share it make principals and topics of their own.
type SharedKafka struct {
	Brokers int      // default: 1
	More    []string // lines of their configuration

	once  sync.Once
	kafka *Kafka
	err   error
}

// Get returns the cluster, or ends the test as [Require] says.
func (s *SharedKafka) Get(t testing.TB) *Kafka {
	t.Helper()
	s.once.Do(func() {
		s.kafka = &Kafka{more: s.More}
		if s.kafka.dir, s.err = os.MkdirTemp("", "keyturn-kafka-"); s.err == nil {
			s.err = s.kafka.fetchAndStart(context.Background(), max(s.Brokers, 1))
		}
	})
	Require(t, s.err)
	return s.kafka
}

// Stop stops it if it was started.
func (s *SharedKafka) Stop() error {
	s.once.Do(func() { s.err = errors.New("the shared server was stopped") })
	if s.kafka == nil {
		return nil
	}
	s.kafka.stop()
	return os.RemoveAll(s.kafka.dir)
}

func (k *Kafka) fetchAndStart(ctx context.Context, brokers int) (err error) {
	if k.jars, err = FetchKafka(ctx); err != nil {
		return err
	}
	k.flags = []string{"-Xshare:auto", "-XX:SharedArchiveFile=" + filepath.Join(k.jars, archive)}
	return k.start(ctx, brokers)
}

func (k *Kafka) start(ctx context.Context, brokers int) (err error) {
	if k.authority, err = NewAuthority(); err != nil {
		return err
	}
	if err := os.WriteFile(k.CAFile(), k.authority.PEM, 0o644); err != nil {
		return err
	}
	k.root, k.host = rand.Text(), cmp.Or(k.host, "127.0.0.1")
	cluster := kafkaID()
	var voters []string
	for i := range brokers {
		b := &kafkaBroker{dir: filepath.Join(k.dir, fmt.Sprintf("broker%d", i+1))}
		for _, port := range []*int{&b.tls, &b.one, &b.internal, &b.controllers} {
			if *port, err = freePort("tcp", "127.0.0.1"); err != nil {
				return err
			}
		}
		k.brokers = append(k.brokers, b)
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, b.controllers))
	}
	for i := range k.brokers {
		if err := k.write(i, cluster, strings.Join(voters, ",")); err != nil {
			return err
		}
		if err := k.Start(i); err != nil {
			return err
		}
	}
	for i := range k.brokers {
		if err := k.await(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Start starts a broker, which was stopped.
func (k *Kafka) Start(i int) error {
	b := k.brokers[i]
	java, err := installed("java")
	if err != nil {
		return err
	}
	args := append(append([]string{}, javaFlags...), k.flags...)
	if k.netns != "" { // who connects is looked up by its address, and no name server is there
		hosts := filepath.Join(b.dir, "hosts")
		if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
			return err
		}
		args = append(args, "-Djdk.net.hosts.file="+hosts)
	}
	cmd := exec.Command(java, append(args, "-Dlog4j2.configurationFile=file:"+filepath.Join(b.dir, "log4j2.properties"),
		"-cp", filepath.Join(k.jars, "jars")+"/*", "kafka.Kafka", filepath.Join(b.dir, "server.properties"))...)
	cmd.Dir, cmd.SysProcAttr = b.dir, &syscall.SysProcAttr{}
	if k.netns != "" {
		within(cmd, k.netns)
	}
	b.process, err = startProcess(cmd, k.LogFile(i))
	return err
}

// await waits until a broker answers, and has heard of all the others.
func (k *Kafka) await(ctx context.Context, i int) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := k.ask(ctx, i, kmsg.NewPtrMetadataRequest())
		if err == nil && len(resp.(*kmsg.MetadataResponse).Brokers) == len(k.brokers) {
			return nil
		}
		if !k.brokers[i].process.running() || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("Kafka does not answer: %w: %s", err, tailOf(k.LogFile(i)))
		}
	}
}

// ask asks one broker as the super user.
func (k *Kafka) ask(ctx context.Context, i int, request kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := k.rootClient(i)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.SeedBrokers()[0].Request(ctx, request)
}

func (k *Kafka) rootClient(i int, more ...kgo.Opt) (*kgo.Client, error) {
	if k.netns != "" {
		more = append(more, kgo.Dialer(DialIn(k.netns)))
	}
	return kgo.NewClient(append(more, kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", k.brokers[i].internal)),
		kgo.SASL(plain.Auth{User: "root", Pass: k.root}.AsMechanism()))...)
}

// Await waits until a broker that was started again takes part.
func (k *Kafka) Await(t testing.TB, i int) {
	t.Helper()
	if err := k.await(context.Background(), i); err != nil {
		t.Fatal(err)
	}
}

// Kill ends a broker at once.
func (k *Kafka) Kill(i int) { k.brokers[i].process.kill() }

// Pause stops a broker in its tracks, until Continue.
func (k *Kafka) Pause(i int) error { return k.brokers[i].process.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a broker go on.
func (k *Kafka) Continue(i int) error {
	return k.brokers[i].process.cmd.Process.Signal(syscall.SIGCONT)
}

func (k *Kafka) stop() {
	for _, b := range k.brokers {
		if b.process != nil {
			b.process.kill()
		}
	}
}

// Addresses are those that services connect to, of every broker.
func (k *Kafka) Addresses() (out []string) {
	for _, b := range k.brokers {
		out = append(out, fmt.Sprintf("%s:%d", k.host, b.tls))
	}
	return out
}

// OneMechanism is the address of a listener of a broker that takes SCRAM-SHA-512 alone.
func (k *Kafka) OneMechanism(i int) string { return fmt.Sprintf("%s:%d", k.host, k.brokers[i].one) }

// CAFile is the path of the authority's certificate.
func (k *Kafka) CAFile() string { return filepath.Join(k.dir, "ca.pem") }

// CA is the authority's certificate.
func (k *Kafka) CA() []byte { return k.authority.PEM }

// TLS trusts the authority.
func (k *Kafka) TLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.authority.PEM)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// LogFile is the path of a broker's log, with every request in it.
func (k *Kafka) LogFile(i int) string { return filepath.Join(k.brokers[i].dir, "log") }
