package testserver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

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
	cert, key, err := k.authority.Issue(Certificate{Names: []string{k.host, "127.0.0.1", "localhost"}})
	if err != nil {
		return err
	}
	copies := min(len(k.brokers), 3)
	values := map[string]any{
		"ID": i + 1, "TLS": b.tls, "ONE": b.one, "INTERNAL": b.internal, "CONTROLLERS": b.controllers, "VOTERS": voters, "DIR": b.dir, "DATA": data,
		"BIND": map[bool]string{true: "127.0.0.1", false: "0.0.0.0"}[k.netns == ""], "HOST": k.host, "ROOT": k.root, "COPIES": copies, "MIN": (copies + 2) / 2, "TOKENS": rand.Text(),
	}
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, "@"+name+"@", fmt.Sprint(value))
	}
	config := strings.NewReplacer(pairs...).Replace(kafkaConfig) + strings.Join(k.more, "\n") + "\n" // of two lines with one key the latter counts
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
listeners=CLIENTS://@BIND@:@TLS@,ONE://@BIND@:@ONE@,INTERNAL://127.0.0.1:@INTERNAL@,CONTROLLERS://127.0.0.1:@CONTROLLERS@
advertised.listeners=CLIENTS://@HOST@:@TLS@,ONE://@HOST@:@ONE@,INTERNAL://127.0.0.1:@INTERNAL@
listener.security.protocol.map=CLIENTS:SASL_SSL,ONE:SASL_SSL,INTERNAL:SASL_PLAINTEXT,CONTROLLERS:SASL_PLAINTEXT
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
listener.name.one.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.one.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=@DIR@/keystore.pem
ssl.enabled.protocols=TLSv1.3
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
