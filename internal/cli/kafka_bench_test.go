package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// byScript does what teams do today: the password is changed in place, a new secret, an update of both
// services, and the old secret away.
func (c *kafkaShop) byScript(b *testing.B, k *stack, n int) {
	b.Helper()
	properties := filepath.Join(b.TempDir(), "admin.properties")
	k.must(os.WriteFile(properties, fmt.Appendf(nil, `security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location=%s
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="%s-keyturn" password="%s";
`, c.k.CAFile(), c.name, c.secrets[0]), 0o600))
	k.byScript(b, fmt.Sprintf(`
set -f
password=$(head -c 32 /dev/urandom | base64 | tr -d '/+=')
$KAFKA_CONFIGS --bootstrap-server "$BROKERS" --command-config %[1]s --alter --entity-type users --entity-name %[2]s --add-config "SCRAM-SHA-512=[password=$password]"
printf %%s "$password" | docker secret create %[3]s -
docker service update --quiet --secret-rm %[4]s --secret-add source=%[3]s,target=kafka_password,mode=0400 %[5]s
docker service update --quiet --secret-rm %[4]s --secret-add source=%[3]s,target=kafka_password,mode=0400 %[2]s-reader
docker secret rm %[4]s
`, properties, c.name, k.scripted(n), k.scripted(n-1), k.service), "KAFKA_CONFIGS="+c.k.Configs(b), "BROKERS="+strings.Join(c.k.Addresses(), ","))
}

// BenchmarkKafka rotates the credential of one producer and one consumer by Keyturn, and that of others by
// a script, in turn, three times each. Clients must log in again every ten seconds, as they must every
// hour elsewhere.
func BenchmarkKafka(b *testing.B) {
	for b.Loop() {
		kafka := testserver.NewKafka(b, 3, "listener.name.clients.scram-sha-512.connections.max.reauth.ms=10000")
		ours, theirs := newKafkaShop(b, kafka), newKafkaShop(b, kafka)
		k, s := ours.onSwarm(""), theirs.onSwarm("")
		beside(b, k, s, "operations", func(n int) { theirs.byScript(b, s, n) })
		ours.left(4)
		k.noneLost()
	}
}
