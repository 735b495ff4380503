package cli_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A kafkaShop is what rotates a credential of Kafka.
type kafkaShop struct {
	*shop
	k       *testserver.Kafka
	old     string   // the password that was given by hand
	rules   []string // what its user may do
	section string   // of the configuration
}

// newKafkaShop makes an administrator, a topic, and a user for services, by hand.
func newKafkaShop(t *testing.T, k *testserver.Kafka) *kafkaShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("topic%d", serial.Add(1))
	c := &kafkaShop{k: k, old: kafkaPassword(), shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	admin := kafkaPassword()
	k.User(t, name+"-keyturn", admin)
	k.Administrator(t, name+"-keyturn")
	k.User(t, name, c.old)
	k.Topic(t, name)
	k.Allow(t, name, testserver.KafkaRule{Type: kmsg.ACLResourceTypeTopic, Name: name, Operation: kmsg.ACLOperationAll},
		testserver.KafkaRule{Type: kmsg.ACLResourceTypeGroup, Name: name, Operation: kmsg.ACLOperationAll})
	k.Quota(t, name, "", "producer_byte_rate", 1e9)
	c.rules = k.Rules(t, name)
	c.secrets = []string{admin, c.old}
	c.env = append(os.Environ(), asProgram+"=1", "KEYTURN_KAFKA_PASSWORD="+admin, "CI=")
	c.section = fmt.Sprintf(`kafka: {brokers: ["%[2]s"], ca: %[3]s, admin: %[1]s-keyturn, admin-password: {from-env: KEYTURN_KAFKA_PASSWORD}, principals: [%[1]s-a, %[1]s-b, %[1]s-c], adopt: %[1]s, topics: [%[1]s]}`,
		name, strings.Join(k.Addresses(), `", "`), k.CAFile())
	return c
}

func kafkaPassword() string { return string(secret.Generate().Reveal()) }

// onSwarm deploys a service that produces, and one that consumes, all the time.
func (c *kafkaShop) onSwarm() *stack {
	c.t.Helper()
	engine := stackEngine(c.t)
	k := &stack{shop: c.shop, engine: engine, client: engine.Client(), service: c.name + "_app", secret: c.name + "_kafka_password", load: filepath.Join(filepath.Dir(c.config), "load")}
	k.must(os.Mkdir(k.load, 0o777))
	reader := c.name + "-reader"
	k.must(os.WriteFile(k.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
swarm: {host: "%[2]s", image: "%[3]s"}
credentials:
  %[4]s:
    %[5]s
    services:
      %[4]s_app: {file: {KAFKA_PASSWORD_FILE: password}, env: {KAFKA_USERNAME: username}}
      %[6]s: {file: {KAFKA_PASSWORD_FILE: password}, env: {KAFKA_USERNAME: username}}
    secrets: {password: %[4]s_kafka_password}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}
`, k.journal, engine.Host(), probeImage, k.name, c.section, reader)), 0o600))
	ref, err := engine.CreateSecret(c.t.Context(), k.secret, []byte(c.old+"\n"))
	k.must(err)
	ref.File.Name, ref.File.Mode = "kafka_password", 0o400
	env := []string{"KAFKA_BROKERS=" + strings.Join(c.k.Addresses(), ","), "KAFKA_USERNAME=" + c.name, "KAFKA_PASSWORD_FILE=/run/secrets/kafka_password",
		"KAFKA_CA_FILE=/ca.pem", "LOAD_TOPIC=" + c.name, "LOAD_EVERY=200ms", "LOAD_TELL=/load/told"}
	k.serve(k.specOf(ref, c.k.CAFile(), env...))
	consumer := k.specOf(ref, c.k.CAFile(), append(env, "LOAD_GROUP="+c.name)...)
	consumer.Name = reader
	id, err := engine.CreateService(c.t.Context(), consumer)
	k.must(err)
	k.t.Cleanup(func() { k.must(engine.RemoveService(context.Background(), id)) })
	_, err = engine.WaitTasks(c.t.Context(), reader, swarm.TaskStateRunning, 2)
	k.must(err)
	return k
}

// kafkaRecords counts the records that tasks say they produced, or consumed.
func (k *stack) kafkaRecords(kind string) map[string]int {
	k.t.Helper()
	files, err := filepath.Glob(filepath.Join(k.load, "*."+kind))
	k.must(err)
	out := map[string]int{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		k.must(err)
		for line := range strings.Lines(string(b)) {
			out[line]++
		}
	}
	return out
}

// noneLost ends the producers, and checks that every record was consumed once.
func (k *stack) noneLost() {
	k.t.Helper()
	k.change(replicas(0))
	var produced, consumed map[string]int
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		produced, consumed = k.kafkaRecords("produced"), k.kafkaRecords("consumed")
		if len(k.tasks()) == 0 && maps.Equal(produced, consumed) {
			break
		}
	}
	if len(produced) < 50 || !maps.Equal(produced, consumed) {
		k.t.Errorf("%d records were produced and %d consumed, want the same ones, 50 or more", len(produced), len(consumed))
	}
	for record, times := range consumed {
		if times != 1 || produced[record] != 1 {
			k.t.Errorf("record %q was produced %d times and consumed %d times", strings.TrimSpace(record), produced[record], times)
		}
	}
	k.t.Logf("%d records were produced, each consumed once", len(produced))
}

// principals checks that one principal works, for a version, with the rights of the adopted one,
// and that nobody has the value of another one, which is denied everything.
func (c *kafkaShop) principals(current int) {
	c.t.Helper()
	alive := 0
	for _, user := range []string{c.name, c.name + "-a", c.name + "-b", c.name + "-c"} {
		iterations, rules := int(c.k.Iterations(c.t, user)), c.k.Rules(c.t, user)
		var own, denied []string
		for _, rule := range rules {
			if strings.HasPrefix(rule, "DENY ALL on") {
				denied = append(denied, rule)
			} else {
				own = append(own, rule)
			}
		}
		switch {
		case iterations == 8192+current:
			if alive++; len(denied) > 0 || !slices.Equal(own, c.rules) || fmt.Sprint(c.k.Quotas(c.t, user)) != "[producer_byte_rate=1e+09]" {
				c.t.Errorf("%s may %q, with quotas %q, want what %s could", user, rules, c.k.Quotas(c.t, user), c.name)
			}
		case iterations > 12288 && iterations <= 12288+current:
			if len(denied) != 5 {
				c.t.Errorf("%s was ended, and is denied %q, want 5 rules", user, denied)
			}
		case iterations != 0:
			c.t.Errorf("%s has a credential of %d iterations, want none that works", user, iterations)
		}
	}
	if alive != 1 {
		c.t.Errorf("%d principals have a credential of version %d, want 1", alive, current)
	}
}

// TestKafkaOnSwarm rotates a credential twice, phase by phase and in one go, while one service
// produces and another one consumes, and once back: nothing fails, no record is lost or
// doubled, the old principals are refused, and no value is seen anywhere.
func TestKafkaOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newKafkaShop(t, testserver.NewKafka(t, 3))
	k := c.onSwarm()
	k.ok("doctor")
	k.ok("adopt", k.name)
	if plan := k.ok("plan", k.name); !strings.Contains(plan, "connections.max.reauth.ms is not set for SCRAM-SHA-512 on 127.0.0.1:") || !strings.Contains(plan, c.name+"-a") {
		t.Errorf("the plan does not name the next principal, and that connections last for ever:\n%s", plan)
	}
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	k.ok("cutover", k.name)
	k.ok("rollback", "--reason", "drill", k.name)
	for version := 3; version <= 4; version++ {
		k.ok("-v", "rotate", k.name)
		time.Sleep(time.Second) // the overlap
		k.ok("-v", "cleanup", k.name)
		c.principals(version)
		told, err := os.ReadFile(filepath.Join(k.load, "told"))
		k.must(err)
		k.secrets = append(k.secrets, strings.Fields(string(told))...)
		k.done(version)
	}
	k.ok("check")
	k.noneFailed()
	k.noneLost()
	for i := range 3 {
		log, err := os.ReadFile(c.k.LogFile(i))
		k.must(err)
		if !strings.Contains(string(log), "SCRAM-SHA-512") || !strings.Contains(string(log), "TRACE") {
			t.Errorf("the log of broker %d says nothing of logins: is it at TRACE?", i+1)
		}
		k.clean(string(log))
	}
}

// inDirectory lets a service read the credential from a directory.
func (c *kafkaShop) inDirectory() {
	c.t.Helper()
	home := filepath.Join(c.root, c.name, "initial")
	c.must(os.MkdirAll(home, 0o755))
	c.must(os.WriteFile(filepath.Join(home, "password"), []byte(c.old), 0o400))
	c.must(os.WriteFile(filepath.Join(home, "username"), []byte(c.name), 0o400))
	c.must(os.Symlink("initial", filepath.Join(c.root, c.name, "current")))
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    %s
    services:
      app: {path: {/run/secrets/password: password, /run/secrets/username: username}}
    minimum-age: 0s
    overlap: 1s
`, c.journal, c.root, c.name, c.section)), 0o600))
}

// uses produces with what the directory holds, on a new connection each time, until it is told
// to stop; it returns how often, and what failed.
func (c *kafkaShop) uses() (stop func() (tried int, failures []string)) {
	return again(200*time.Millisecond, func() (bool, error) {
		dir, err := filepath.EvalSymlinks(filepath.Join(c.root, c.name, "current"))
		if err != nil {
			return true, err
		}
		user, err := os.ReadFile(filepath.Join(dir, "username"))
		if err != nil {
			return true, err
		}
		password, err := os.ReadFile(filepath.Join(dir, "password"))
		if err != nil {
			return true, err
		}
		client := c.k.Client(c.t, string(user), string(password), kgo.ProducerLinger(0))
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return true, client.ProduceSync(ctx, &kgo.Record{Topic: c.name, Value: []byte("x")}).FirstErr()
	})
}

// TestCrashKafka kills keyturn before and after every record and every effect of a rotation, and
// lets it go on: nothing fails, and one principal works. Without KEYTURN_CRASH=all it is
// a few of these points.
func TestCrashKafka(t *testing.T) {
	t.Parallel()
	kafka := servers.kafka.Get(t)
	run := func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		c := newKafkaShop(t, kafka)
		c.inDirectory()
		c.ok("adopt", c.name)
		stop := c.uses()
		r := c.killedAt(at, stop)
		p := c.status()
		c.principals(p.Current)
		client := kafka.Client(t, c.name, c.old)
		defer client.Close()
		if err := client.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
			t.Errorf("the old user logs in, and the answer is %v", err)
		}
		journal, err := os.ReadFile(c.journal)
		c.must(err)
		c.secrets = append(c.secrets, c.values()...)
		c.clean(string(journal))
		return r
	}
	everyCrash(t, oneOfEight, run)
}
