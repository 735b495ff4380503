package cli_test

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestBrokerCannotAnswer kills one of three brokers before each phase: in turn one of them, and
// the active controller. The phase waits with a word on which one does not answer, the services
// go on, and once the broker is back the same command comes to its end.
func TestBrokerCannotAnswer(t *testing.T) {
	if os.Getenv("KEYTURN_FAULTS") != "all" {
		t.Skip("make faults runs it: KEYTURN_FAULTS=all")
	}
	t.Parallel()
	kafka := testserver.NewKafka(t, 3)
	t.Run("principals", func(t *testing.T) { newKafkaShop(t, kafka).brokersDown(t) })
	t.Run("mechanisms", func(t *testing.T) { newKafkaShop(t, kafka).onePrincipal().brokersDown(t) })
}

func (c *kafkaShop) brokersDown(t *testing.T) {
	phases, kafka := []string{"prepare", "validate", "cutover", "cleanup"}, c.k
	c.inDirectory()
	c.ok("adopt", c.name)
	stop := c.uses()
	for i, phase := range phases {
		for _, down := range []int{i % 3, controllerOf(t, kafka)} {
			before := c.status()
			kafka.Kill(down)
			r := c.run(phase, c.name)
			if r.code != 0 && !strings.Contains(r.stderr, kafka.Addresses()[down]) {
				t.Errorf("%s with broker %d down: exit %d, and the message does not name it:\n%s%s", phase, down+1, r.code, r.stdout, r.stderr)
			}
			if r.code == 0 && phase != "cutover" { // which has nothing to do in Kafka
				t.Errorf("%s with broker %d down went well:\n%s%s", phase, down+1, r.stdout, r.stderr)
			}
			if now := c.status(); r.code != 0 && (now.Current != before.Current || now.Previous != before.Previous) {
				t.Errorf("%s with broker %d down: status was %+v, and is %+v", phase, down+1, before, now)
			}
			if err := kafka.Start(down); err != nil {
				t.Fatal(err)
			}
			kafka.Await(t, down)
		}
		if phase == "cutover" && c.status().Previous != 0 {
			continue // it was done
		}
		c.ok(phase, c.name)
	}
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d times failed: %q", tried, failures)
	}
	p := c.status()
	c.versions(p.Current)
	c.left(p.Current)
	c.ok("audit", "verify")
}

// controllerOf returns the broker that leads the controllers.
func controllerOf(t *testing.T, k *testserver.Kafka) int {
	t.Helper()
	request := kmsg.NewPtrDescribeQuorumRequest()
	partition := kmsg.NewDescribeQuorumRequestTopicPartition()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	resp, ok := k.Ask(t, 0, request).(*kmsg.DescribeQuorumResponse)
	if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("the quorum is %+v", resp)
	}
	return int(resp.Topics[0].Partitions[0].LeaderID) - 1
}
