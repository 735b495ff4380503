package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/rotation"
)

// needed are what the administrator must be allowed on the cluster.
var needed = []kmsg.ACLOperation{kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe, kmsg.ACLOperationAlterConfigs, kmsg.ACLOperationDescribeConfigs}

// Preflight checks that every broker answers and is named in the settings, that the
// administrator may do what a rotation does, and that there are ACLs. It reads only.
func (b *Backend) Preflight(ctx context.Context, cred rotation.Credential) error {
	c, err := b.ready(ctx, cred)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.rights(ctx, b.settings.Principals[0]) // without an authorizer there are none
	return err
}

// ready opens the brokers, and checks what a rotation needs of each.
func (t *turn) ready(ctx context.Context, cred rotation.Credential) (*cluster, error) {
	if err := t.ours(cred); err != nil {
		return nil, err
	}
	c, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	_, _, err = every(ctx, c, "looking at the cluster", func(ctx context.Context, at broker) (struct{}, error) { return struct{}{}, c.ready(ctx, at) })
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// ready checks one broker.
func (c *cluster) ready(ctx context.Context, b broker) error {
	resp, err := ask[*kmsg.MetadataResponse](ctx, b, noTopics())
	if err != nil {
		return err
	}
	if len(resp.Brokers) > len(c.brokers) {
		return refused("name each broker by itself under brokers:, not what balances between them",
			"%s says that %d brokers are in the cluster, and %d are named: whether a credential is dead is asked of every one", b.address, len(resp.Brokers), len(c.brokers))
	}
	may, err := mayOn(ctx, b)
	if err != nil {
		return err
	}
	var lacks []string
	for _, operation := range needed {
		if may&(1<<operation) == 0 {
			lacks = append(lacks, operation.String())
		}
	}
	if len(lacks) > 0 {
		return refused("allow it that: kafka-acls --add --cluster --allow-principal User:… --operation …", "%s: the administrator may not %s on the cluster", b.address, strings.Join(lacks, ", "))
	}
	return nil
}

// mayOn returns what whoever asks may do with the cluster: a bit for each operation.
func mayOn(ctx context.Context, b broker) (int32, error) {
	request := kmsg.NewPtrDescribeClusterRequest()
	request.IncludeClusterAuthorizedOperations = true
	resp, err := ask[*kmsg.DescribeClusterResponse](ctx, b, request)
	if err != nil {
		return 0, err
	}
	return resp.ClusterAuthorizedOperations, refusalOf(resp.ErrorCode, resp.ErrorMessage)
}

// configOf asks a broker for its configuration. It answers for its own id alone, so each id is
// tried.
func configOf(ctx context.Context, b broker) (map[string]string, error) {
	who, err := ask[*kmsg.MetadataResponse](ctx, b, noTopics())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(who.Brokers, func(x, y kmsg.MetadataResponseBroker) int { // the one that is asked first
		return strings.Compare(fmt.Sprint(fmt.Sprintf("%s:%d", x.Host, x.Port) != b.address), fmt.Sprint(fmt.Sprintf("%s:%d", y.Host, y.Port) != b.address))
	})
	var last error
	for _, id := range who.Brokers {
		request := kmsg.NewPtrDescribeConfigsRequest()
		request.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: fmt.Sprint(id.NodeID)}}
		resp, err := ask[*kmsg.DescribeConfigsResponse](ctx, b, request)
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Resources {
			if last = refusalOf(r.ErrorCode, r.ErrorMessage); last != nil {
				continue
			}
			values := map[string]string{}
			for _, entry := range r.Configs {
				if entry.Value != nil {
					values[entry.Name] = *entry.Value
				}
			}
			return values, nil
		}
	}
	return nil, last
}

const untold = "Kafka ends no credential by itself, and lists no sessions: until cleanup has ended the old %s it stays valid, and whether a client still uses it cannot be seen"

// Warnings implements [rotation.Warner].
func (b *Backend) Warnings(ctx context.Context, _ string) ([]string, error) {
	out := []string{fmt.Sprintf(untold, "principal")}
	c, err := b.open(ctx)
	if err != nil {
		return out, err
	}
	defer c.close()
	without, _, err := b.lasting(ctx, c)
	if len(without) > 0 {
		out = append(out, fmt.Sprintf("%s is not set for %s on %s: a client that stays connected is stopped by denying its principal everything, and by nothing else; "+
			"one that is still connected when its principal's turn comes again is not stopped any more. Set it, to an hour for one", reauth, b.settings.Mechanism, strings.Join(without, ", ")))
	}
	return out, err
}
