package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// inDirectory lets a service read the credential from a directory.
func (c *kafkaShop) inDirectory() {
	c.t.Helper()
	home := filepath.Join(c.root, c.name, "initial")
	c.must(os.MkdirAll(home, 0o755))
	c.must(os.WriteFile(filepath.Join(home, "password"), []byte(c.old), 0o400))
	field, _ := c.turning()
	c.must(os.WriteFile(filepath.Join(home, field), []byte(map[bool]string{false: c.name, true: "SCRAM-SHA-512"}[c.one]), 0o400))
	c.must(os.Symlink("initial", filepath.Join(c.root, c.name, "current")))
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
directory: {path: %[2]s}
credentials:
  %[3]s:
    %[4]s
    services:
      app: {path: {/run/secrets/password: password, /run/secrets/%[5]s: %[5]s}}
    minimum-age: 0s
    overlap: 1s
`, c.journal, c.root, c.name, c.section, field)), 0o600))
}

// uses produces with what the directory holds, on a new connection each time, until it is told
// to stop; it returns how often, and what failed.
func (c *kafkaShop) uses() (stop func() (tried int, failures []string)) {
	return again(200*time.Millisecond, func() (bool, error) { return true, c.inOverlap(c.produce) })
}

// produce produces with the version in a directory.
func (c *kafkaShop) produce(dir string) error {
	field, _ := c.turning()
	turning, err := os.ReadFile(filepath.Join(dir, field))
	if err != nil {
		return err
	}
	password, err := os.ReadFile(filepath.Join(dir, "password"))
	if err != nil {
		return err
	}
	user, mechanism := string(turning), "SCRAM-SHA-512"
	if c.one {
		user, mechanism = c.name, user
	}
	client := c.k.ClientBy(c.t, mechanism, user, string(password), kgo.ProducerLinger(0), kgo.AlwaysRetryEOF()) // a broker may die in this moment
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // with a broker down, the others must agree first
	defer cancel()
	return client.ProduceSync(ctx, &kgo.Record{Topic: c.name, Value: []byte("x")}).FirstErr()
}

// TestCrashKafka kills keyturn before and after every record and every effect of a rotation, and
// lets it go on: nothing fails, and one principal works, or one mechanism of one. Without
// KEYTURN_CRASH=all it is a few of these points.
func TestCrashKafka(t *testing.T) {
	t.Parallel()
	kafka := servers.kafka.Get(t)
	run := func(t *testing.T, c *kafkaShop, at int) result {
		if at > 0 {
			t.Parallel()
		}
		c.inDirectory()
		c.ok("adopt", c.name)
		stop := c.uses()
		r := c.killedAt(at, stop)
		c.left(c.status().Current)
		client := kafka.Client(t, c.name, c.old)
		defer client.Close()
		if err := client.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
			t.Errorf("the old password is taken, and the answer is %v", err)
		}
		journal, err := os.ReadFile(c.journal)
		c.must(err)
		c.secrets = append(c.secrets, c.values()...)
		c.clean(string(journal))
		return r
	}
	t.Run("principals", func(t *testing.T) {
		everyCrash(t, oneOfEight, func(t *testing.T, at int) result { return run(t, newKafkaShop(t, kafka), at) })
	})
	t.Run("mechanisms", func(t *testing.T) {
		few := func(i int) bool { return i%24 == 13 } // the core is the same
		everyCrash(t, few, func(t *testing.T, at int) result { return run(t, newKafkaShop(t, kafka).onePrincipal(), at) })
	})
}
