package testserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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
}

type kafkaBroker struct {
	dir                        string
	tls, internal, controllers int // ports
	process                    *process
}

// NewKafka starts so many brokers as long as the test runs.
func NewKafka(t testing.TB, brokers int) *Kafka {
	t.Helper()
	k := &Kafka{dir: t.TempDir()}
	t.Cleanup(k.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // it may be fetched first
	defer cancel()
	Require(t, k.fetchAndStart(ctx, brokers))
	return k
}

// A SharedKafka is one cluster for all tests of a package, as [SharedEngine] is. Tests that
// share it make principals and topics of their own.
type SharedKafka struct {
	Brokers int // default: 1

	once  sync.Once
	kafka *Kafka
	err   error
}

// Get returns the cluster, or ends the test as [Require] says.
func (s *SharedKafka) Get(t testing.TB) *Kafka {
	t.Helper()
	s.once.Do(func() {
		s.kafka = &Kafka{}
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
	k.root = rand.Text()
	cluster := kafkaID()
	var voters []string
	for i := range brokers {
		b := &kafkaBroker{dir: filepath.Join(k.dir, fmt.Sprintf("broker%d", i+1))}
		for _, port := range []*int{&b.tls, &b.internal, &b.controllers} {
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

// kafkaID is an id as Kafka makes them.
func kafkaID() string {
	id := make([]byte, 16)
	rand.Read(id)
	id[0] &= 0x7f // none that begins with a hyphen
	return base64.RawURLEncoding.EncodeToString(id)
}

// write writes a broker's certificate and configuration, and formats its folder, which is to
// write one file. The configuration alone holds secrets: no argument does.
func (k *Kafka) write(i int, cluster, voters string) error {
	b := k.brokers[i]
	data := filepath.Join(b.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	cert, key, err := k.authority.Issue(Certificate{Names: []string{"127.0.0.1", "localhost"}})
	if err != nil {
		return err
	}
	copies := min(len(k.brokers), 3)
	values := map[string]any{
		"ID": i + 1, "TLS": b.tls, "INTERNAL": b.internal, "CONTROLLERS": b.controllers, "VOTERS": voters, "DIR": b.dir, "DATA": data,
		"ROOT": k.root, "COPIES": copies, "MIN": (copies + 2) / 2, "TOKENS": rand.Text(),
	}
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, "@"+name+"@", fmt.Sprint(value))
	}
	config := strings.NewReplacer(pairs...).Replace(kafkaConfig)
	return errors.Join(
		os.WriteFile(filepath.Join(b.dir, "keystore.pem"), append(key, cert...), 0o600),
		os.WriteFile(filepath.Join(b.dir, "server.properties"), []byte(config), 0o600),
		os.WriteFile(filepath.Join(b.dir, "log4j2.properties"), []byte(kafkaLogging), 0o600),
		os.WriteFile(filepath.Join(data, "meta.properties"), fmt.Appendf(nil, "version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", cluster, i+1, kafkaID()), 0o600))
}

// kafkaConfig is a broker's configuration; words between @ stand for what is its own.
const kafkaConfig = `process.roles=broker,controller
node.id=@ID@
controller.quorum.voters=@VOTERS@
listeners=CLIENTS://127.0.0.1:@TLS@,INTERNAL://127.0.0.1:@INTERNAL@,CONTROLLERS://127.0.0.1:@CONTROLLERS@
advertised.listeners=CLIENTS://127.0.0.1:@TLS@,INTERNAL://127.0.0.1:@INTERNAL@
listener.security.protocol.map=CLIENTS:SASL_SSL,INTERNAL:SASL_PLAINTEXT,CONTROLLERS:SASL_PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLERS
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.internal.sasl.enabled.mechanisms=PLAIN
listener.name.controllers.sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.internal.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="root" password="@ROOT@" user_root="@ROOT@";
listener.name.controllers.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="root" password="@ROOT@" user_root="@ROOT@";
listener.name.clients.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.clients.scram-sha-256.connections.max.reauth.ms=3600000
listener.name.clients.ssl.keystore.type=PEM
listener.name.clients.ssl.keystore.location=@DIR@/keystore.pem
listener.name.clients.ssl.enabled.protocols=TLSv1.3
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:root
allow.everyone.if.no.acl.found=false
auto.create.topics.enable=false
delegation.token.secret.key=@TOKENS@
connection.failed.authentication.delay.ms=0
log.dirs=@DATA@
num.partitions=1
default.replication.factor=@COPIES@
min.insync.replicas=@MIN@
offsets.topic.num.partitions=1
offsets.topic.replication.factor=@COPIES@
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=@COPIES@
transaction.state.log.min.isr=@MIN@
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=@COPIES@
share.coordinator.state.topic.min.isr=@MIN@
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=2
`

// kafkaLogging has every request in the log, and all that authentication says.
const kafkaLogging = `appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
logger.security.name=org.apache.kafka.common.security
logger.security.level=TRACE
logger.requests.name=kafka.request.logger
logger.requests.level=TRACE
logger.authorizer.name=kafka.authorizer.logger
logger.authorizer.level=DEBUG
`

// Start starts a broker, which was stopped.
func (k *Kafka) Start(i int) error {
	b := k.brokers[i]
	java, err := installed("java")
	if err != nil {
		return err
	}
	args := append(append([]string{}, javaFlags...), k.flags...)
	cmd := exec.Command(java, append(args, "-Dlog4j2.configurationFile=file:"+filepath.Join(b.dir, "log4j2.properties"),
		"-cp", filepath.Join(k.jars, "jars")+"/*", "kafka.Kafka", filepath.Join(b.dir, "server.properties"))...)
	cmd.Dir = b.dir
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
		out = append(out, fmt.Sprintf("127.0.0.1:%d", b.tls))
	}
	return out
}

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
