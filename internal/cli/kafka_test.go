package cli_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
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
	one     bool     // its versions take the mechanisms of one principal in turn
}

// newKafkaShop makes an administrator, a topic, and a user for services, by hand.
func newKafkaShop(t testing.TB, k *testserver.Kafka) *kafkaShop {
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
	c.env = append(os.Environ(), "KEYTURN_KAFKA_PASSWORD="+admin, "CI=")
	c.section = fmt.Sprintf(`kafka: {brokers: ["%[2]s"], ca: %[3]s, admin: %[1]s-keyturn, admin-password: {from-env: KEYTURN_KAFKA_PASSWORD}, principals: [%[1]s-a, %[1]s-b, %[1]s-c], adopt: %[1]s, topics: [%[1]s]}`,
		name, strings.Join(k.Addresses(), `", "`), k.CAFile())
	return c
}

// onePrincipal has versions take the mechanisms of the user in turn.
func (c *kafkaShop) onePrincipal() *kafkaShop {
	was := fmt.Sprintf("principals: [%[1]s-a, %[1]s-b, %[1]s-c], adopt: %[1]s", c.name)
	c.one, c.section = true, strings.Replace(c.section, was, "principal: "+c.name+", accept-live-connections: true", 1)
	return c
}

// turning is the public field that changes with each version, and the variable that has it.
func (c *kafkaShop) turning() (field, variable string) {
	if c.one {
		return "mechanism", "KAFKA_SASL_MECHANISM"
	}
	return "username", "KAFKA_USERNAME"
}

func kafkaPassword() string { return string(secret.Generate().Reveal()) }

// onSwarm deploys a service that produces, and one that consumes, all the time. More is a line
// of the credential in the configuration, or "".
func (c *kafkaShop) onSwarm(more string, options ...stackOption) *stack {
	c.t.Helper()
	field, variable := c.turning()
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
      %[4]s_app: {file: {KAFKA_PASSWORD_FILE: password}, env: {%[7]s: %[8]s}}
      %[6]s: {file: {KAFKA_PASSWORD_FILE: password}, env: {%[7]s: %[8]s}}
    secrets: {password: %[4]s_kafka_password}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}
    %[9]s
`, k.journal, engine.Host(), probeImage, k.name, c.section, reader, variable, field, more)), 0o600))
	ref, err := engine.CreateSecret(c.t.Context(), k.secret, []byte(c.old+"\n"))
	k.must(err)
	ref.File.Name, ref.File.Mode = "kafka_password", 0o400
	env := []string{"KAFKA_BROKERS=" + strings.Join(c.k.Addresses(), ","), "KAFKA_USERNAME=" + c.name, "KAFKA_PASSWORD_FILE=/run/secrets/kafka_password",
		"KAFKA_CA_FILE=/ca.pem", "LOAD_TOPIC=" + c.name, "LOAD_EVERY=200ms", "LOAD_TELL=/load/told"}
	producer, consumer := k.specOf(ref, c.k.CAFile(), env...), k.specOf(ref, c.k.CAFile(), append(env, "LOAD_GROUP="+c.name)...)
	consumer.Name = reader
	for _, o := range options {
		o(&producer)
		o(&consumer)
	}
	k.serve(producer)
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

// left checks what is left of all versions but the current one: nothing that works.
func (c *kafkaShop) left(current int) {
	c.t.Helper()
	if c.one {
		c.mechanisms(current)
	} else {
		c.principals(current)
	}
}

// mechanisms checks that the principal has a credential of a version by one mechanism, and by the other
// one that nobody has the value of, and is otherwise as it was.
func (c *kafkaShop) mechanisms(current int) {
	c.t.Helper()
	alive := 0
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		iterations := int(c.k.IterationsBy(c.t, mechanism, c.name))
		switch {
		case iterations == 8192+current:
			alive++
		case iterations <= 12288 || iterations > 12288+current:
			c.t.Errorf("%s has a credential for %s of %d iterations, want none that works", c.name, mechanism, iterations)
		}
	}
	if alive != 1 {
		c.t.Errorf("%d mechanisms have a credential of version %d, want 1", alive, current)
	}
	if rules, quotas := c.k.Rules(c.t, c.name), fmt.Sprint(c.k.Quotas(c.t, c.name)); !slices.Equal(rules, c.rules) || quotas != kafkaQuotas {
		c.t.Errorf("%s may %q, with quotas %q, want what it could", c.name, rules, quotas)
	}
}

const kafkaQuotas = "[producer_byte_rate=1e+09]"

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
			if alive++; len(denied) > 0 || !slices.Equal(own, c.rules) || fmt.Sprint(c.k.Quotas(c.t, user)) != kafkaQuotas {
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

// TestKafkaOnSwarm rotates a credential by principals, see twiceAndBack.
func TestKafkaOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newKafkaShop(t, testserver.NewKafka(t, 3))
	c.twiceAndBack("-a", "connections.max.reauth.ms is not set for SCRAM-SHA-512 on 127.0.0.1:")
	c.silent("SCRAM-SHA-512")
}

// TestKafkaMechanismsOnSwarm rotates the password of one principal, see twiceAndBack.
func TestKafkaMechanismsOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newKafkaShop(t, testserver.NewKafka(t, 1)).onePrincipal()
	c.twiceAndBack(" SCRAM-SHA-256", "connections.max.reauth.ms is not set on 127.0.0.1:")
	c.silent("SCRAM-SHA-256", "SCRAM-SHA-512")
}

// twiceAndBack rotates twice, phase by phase and in one go, while one service produces and another
// one consumes, and once back: nothing fails, no record is lost or doubled, and what was ended is
// refused. The plan names what comes next, and warns.
func (c *kafkaShop) twiceAndBack(next, warns string) {
	c.t.Helper()
	k := c.onSwarm("")
	k.ok("doctor")
	k.ok("adopt", k.name)
	if plan := k.ok("plan", k.name); !strings.Contains(plan, warns) || !strings.Contains(plan, c.name+next) {
		c.t.Errorf("the plan does not name the next one, and that connections last for ever:\n%s", plan)
	}
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	k.ok("cutover", k.name)
	k.ok("rollback", "--reason", "drill", k.name)
	for version := 3; version <= 4; version++ {
		k.ok("-v", "rotate", k.name)
		time.Sleep(time.Second) // the overlap
		k.ok("-v", "cleanup", k.name)
		c.left(version)
		c.told(k)
		k.done(version)
	}
	k.ok("check")
	k.noneFailed()
	k.noneLost()
}

// told keeps the passwords that services had, to look for them elsewhere.
func (c *kafkaShop) told(k *stack) {
	c.t.Helper()
	told, err := os.ReadFile(filepath.Join(k.load, "told"))
	k.must(err)
	k.secrets = append(k.secrets, strings.Fields(string(told))...)
}

// silent checks that no broker's log, which has every request, holds a value.
func (c *kafkaShop) silent(mechanisms ...string) {
	c.t.Helper()
	for i := range c.k.Addresses() {
		log, err := os.ReadFile(c.k.LogFile(i))
		c.must(err)
		for _, word := range append(mechanisms, "TRACE") {
			if !strings.Contains(string(log), word) {
				c.t.Errorf("the log of broker %d says nothing of %s: is it at TRACE?", i+1, word)
			}
		}
		c.clean(string(log))
	}
}

// TestKafkaThroughSwarm rotates where only the overlay network reaches the brokers, of which each is
// asked by the name that it advertises, killed in the middle and once without: nothing fails, no record
// is lost or doubled, and no relay is left.
func TestKafkaThroughSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	o, host := newOverlay(t)
	c := newKafkaShop(t, testserver.NewKafkaIn(t, o.netns, host, 3))
	k := c.onSwarm("through: swarm", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: o.network}}
		s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	})
	if _, err := net.LookupHost(host); err == nil {
		t.Fatalf("%s leads somewhere from here: nothing would show that the relay is taken", host)
	}
	k.ok("adopt", k.name)
	k.ok("plan", k.name)
	k.ok("rotate", "--wait", k.name)
	c.left(2)
	k.done(2)
	k.dieIn("after effect: prepare arm")
	k.ok("rotate", "--wait", k.name)
	current := k.status().Current
	c.left(current)
	c.told(k)
	k.done(current)
	k.noneFailed()
	k.noneLost()
	k.noRelay()
	c.silent("SCRAM-SHA-512")
}
