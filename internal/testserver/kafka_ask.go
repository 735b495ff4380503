package testserver

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"fmt"
	"hash"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Ask asks a broker as the super user.
func (k *Kafka) Ask(t testing.TB, i int, request kmsg.Request) kmsg.Response {
	t.Helper()
	resp, err := k.ask(context.Background(), i, request)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (k *Kafka) code(t testing.TB, doing string, code int16, message *string) {
	t.Helper()
	if err := kerr.ErrorForCode(code); err != nil {
		text := ""
		if message != nil {
			text = *message
		}
		t.Fatalf("%s: %v: %s", doing, err, text)
	}
}

// scrams are the mechanisms of SCRAM by their names: the number that the protocol has for each, and its hash.
var scrams = map[string]struct {
	number int8
	hash   func() hash.Hash
	size   int
	login  func(scram.Auth) sasl.Mechanism
}{
	"SCRAM-SHA-256": {1, sha256.New, sha256.Size, scram.Auth.AsSha256Mechanism},
	"SCRAM-SHA-512": {2, sha512.New, sha512.Size, scram.Auth.AsSha512Mechanism},
}

const usual = "SCRAM-SHA-512"

// User makes a user of SCRAM-SHA-512, as kafka-configs does, and waits until every broker knows it.
func (k *Kafka) User(t testing.TB, name, password string) {
	t.Helper()
	k.UserBy(t, usual, name, password)
}

// UserBy gives a user a password for one mechanism, as kafka-configs does, and waits until every
// broker knows it.
func (k *Kafka) UserBy(t testing.TB, mechanism, name, password string) {
	t.Helper()
	k.UserOf(t, mechanism, name, password, 4096)
}

// UserOf is UserBy, salted so often.
func (k *Kafka) UserOf(t testing.TB, mechanism, name, password string, iterations int32) {
	t.Helper()
	m := scrams[mechanism]
	salt := make([]byte, 24)
	rand.Read(salt)
	salted, err := pbkdf2.Key(m.hash, password, salt, int(iterations), m.size)
	if err != nil {
		t.Fatal(err)
	}
	request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	request.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: name, Mechanism: m.number, Iterations: iterations, Salt: salt, SaltedPassword: salted}}
	for _, r := range k.Ask(t, 0, request).(*kmsg.AlterUserSCRAMCredentialsResponse).Results {
		k.code(t, "making user "+name, r.ErrorCode, r.ErrorMessage)
	}
	for i := range k.brokers {
		await(t, func() error {
			client := k.ClientBy(t, mechanism, name, password, kgo.SeedBrokers(k.Addresses()[i]))
			defer client.Close()
			return client.Ping(context.Background())
		})
	}
}

// A KafkaRule is one ACL of a principal, as it is read back.
type KafkaRule struct {
	Type      kmsg.ACLResourceType
	Name      string
	Pattern   kmsg.ACLResourcePatternType
	Operation kmsg.ACLOperation
	Deny      bool
	Host      string
}

// Allow lets a user do something with a resource of that very name, or with what begins so.
func (k *Kafka) Allow(t testing.TB, user string, rules ...KafkaRule) {
	t.Helper()
	request := kmsg.NewPtrCreateACLsRequest()
	for _, r := range rules {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Operation = r.Type, r.Name, max(r.Pattern, kmsg.ACLResourcePatternTypeLiteral), r.Operation
		c.Principal, c.Host, c.PermissionType = "User:"+user, "*", kmsg.ACLPermissionTypeAllow
		if r.Host != "" {
			c.Host = r.Host
		}
		if r.Deny {
			c.PermissionType = kmsg.ACLPermissionTypeDeny
		}
		request.Creations = append(request.Creations, c)
	}
	for _, r := range k.Ask(t, 0, request).(*kmsg.CreateACLsResponse).Results {
		k.code(t, "making a rule", r.ErrorCode, r.ErrorMessage)
	}
	for i := range k.brokers {
		await(t, func() error {
			if got := k.rules(t, i, user); len(got) < len(rules) {
				return fmt.Errorf("broker %d has %d rules of %s, want %d", i+1, len(got), user, len(rules))
			}
			return nil
		})
	}
}

// Rules are the ACLs of a user, each in words, sorted.
func (k *Kafka) Rules(t testing.TB, user string) []string {
	t.Helper()
	return k.rules(t, 0, user)
}

func (k *Kafka) rules(t testing.TB, i int, user string) (out []string) {
	t.Helper()
	principal := "User:" + user
	request := kmsg.NewPtrDescribeACLsRequest()
	request.ResourceType, request.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	request.Operation, request.PermissionType, request.Principal = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny, &principal
	resp := k.Ask(t, i, request).(*kmsg.DescribeACLsResponse)
	k.code(t, "reading rules", resp.ErrorCode, resp.ErrorMessage)
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			out = append(out, fmt.Sprintf("%s %s on %s %s %q from %s", a.PermissionType, a.Operation, r.ResourcePatternType, r.ResourceType, r.ResourceName, a.Host))
		}
	}
	slices.Sort(out)
	return out
}

// Iterations are those of a user's credential of SCRAM-SHA-512, 0 if it has none.
func (k *Kafka) Iterations(t testing.TB, user string) int32 {
	t.Helper()
	return k.IterationsBy(t, usual, user)
}

// IterationsBy are those of a user's credential of one mechanism, 0 if it has none.
func (k *Kafka) IterationsBy(t testing.TB, mechanism, user string) int32 {
	t.Helper()
	request := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	request.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: user}}
	for _, r := range k.Ask(t, 0, request).(*kmsg.DescribeUserSCRAMCredentialsResponse).Results {
		for _, c := range r.CredentialInfos {
			if c.Mechanism == scrams[mechanism].number {
				return c.Iterations
			}
		}
	}
	return 0
}

// Administrator lets a user do what Keyturn does.
func (k *Kafka) Administrator(t testing.TB, user string) {
	t.Helper()
	var rules []KafkaRule
	for _, operation := range []kmsg.ACLOperation{kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe, kmsg.ACLOperationAlterConfigs, kmsg.ACLOperationDescribeConfigs} {
		rules = append(rules, KafkaRule{Type: kmsg.ACLResourceTypeCluster, Name: "kafka-cluster", Operation: operation})
	}
	k.Allow(t, user, append(rules, KafkaRule{Type: kmsg.ACLResourceTypeDelegationToken, Name: "*", Operation: kmsg.ACLOperationDescribe})...)
}

// Quota gives a user a quota; of a client-id, if one is named.
func (k *Kafka) Quota(t testing.TB, user, client, key string, value float64) {
	t.Helper()
	entry := kmsg.AlterClientQuotasRequestEntry{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: &user}},
		Ops: []kmsg.AlterClientQuotasRequestEntryOp{{Key: key, Value: value}}}
	if client != "" {
		entry.Entity = append(entry.Entity, kmsg.AlterClientQuotasRequestEntryEntity{Type: "client-id", Name: &client})
	}
	request := kmsg.NewPtrAlterClientQuotasRequest()
	request.Entries = append(request.Entries, entry)
	for _, r := range k.Ask(t, 0, request).(*kmsg.AlterClientQuotasResponse).Entries {
		k.code(t, "setting a quota", r.ErrorCode, r.ErrorMessage)
	}
}

// Quotas are those of a user, each in words, sorted.
func (k *Kafka) Quotas(t testing.TB, user string) (out []string) {
	t.Helper()
	request := kmsg.NewPtrDescribeClientQuotasRequest()
	request.Components = []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "user", MatchType: kmsg.QuotasMatchTypeExact, Match: &user}}
	resp := k.Ask(t, 0, request).(*kmsg.DescribeClientQuotasResponse)
	k.code(t, "reading quotas", resp.ErrorCode, resp.ErrorMessage)
	for _, e := range resp.Entries {
		for _, v := range e.Values {
			text := fmt.Sprintf("%s=%v", v.Key, v.Value)
			for _, of := range e.Entity {
				if of.Type != "user" && of.Name != nil {
					text += " of " + *of.Name
				}
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// Limit sets a key of every broker's configuration while it runs, "" for what it was.
func (k *Kafka) Limit(t testing.TB, key, value string) {
	t.Helper()
	change := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: key, Op: kmsg.IncrementalAlterConfigOpSet, Value: &value}
	if value == "" {
		change.Op, change.Value = kmsg.IncrementalAlterConfigOpDelete, nil
	}
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.Configs = kmsg.ConfigResourceTypeBroker, append(resource.Configs, change)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	for _, r := range k.Ask(t, 0, request).(*kmsg.IncrementalAlterConfigsResponse).Resources {
		k.code(t, "setting "+key, r.ErrorCode, r.ErrorMessage)
	}
}

// Topic makes a topic of one partition.
func (k *Kafka) Topic(t testing.TB, name string) {
	t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, -1
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10000
	for _, r := range k.Ask(t, 0, request).(*kmsg.CreateTopicsResponse).Topics {
		k.code(t, "making topic "+name, r.ErrorCode, r.ErrorMessage)
	}
}

// Client is logged in as a user of SCRAM-SHA-512, as a service would be.
func (k *Kafka) Client(t testing.TB, user, password string, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	return k.ClientBy(t, usual, user, password, more...)
}

// ClientBy is logged in as a user by one mechanism, as a service would be.
func (k *Kafka) ClientBy(t testing.TB, mechanism, user, password string, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.Addresses()...), k.dial(),
		kgo.SASL(scrams[mechanism].login(scram.Auth{User: user, Pass: password}))}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// dial connects as services do.
func (k *Kafka) dial() kgo.Opt {
	if k.netns == "" {
		return kgo.DialTLSConfig(k.TLS())
	}
	raw := DialIn(k.netns)
	return kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := raw(ctx, network, address)
		if err != nil {
			return nil, err
		}
		config := k.TLS()
		config.ServerName = k.host
		return tls.Client(conn, config), nil
	})
}

// await tries again until it goes well.
func await(t testing.TB, try func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
