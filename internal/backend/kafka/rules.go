package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A rule is one ACL of a principal.
type rule struct {
	kind       kmsg.ACLResourceType
	name       string
	pattern    kmsg.ACLResourcePatternType
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
	host       string
}

func (r rule) String() string {
	text := fmt.Sprintf("%s %s on %s %q", r.permission, r.operation, r.kind, r.name)
	if r.pattern == kmsg.ACLResourcePatternTypePrefixed {
		text += " and what begins so"
	}
	if r.host != "*" {
		text += " from " + r.host
	}
	return text
}

// stops are the rules that stop a principal wherever it is connected: clients that are live
// fail with their next request, which no change of a credential does. Super users alone are
// not stopped.
var stops = []rule{
	stop(kmsg.ACLResourceTypeTopic, "*"), stop(kmsg.ACLResourceTypeGroup, "*"), stop(kmsg.ACLResourceTypeTransactionalId, "*"),
	stop(kmsg.ACLResourceTypeCluster, "kafka-cluster"), stop(kmsg.ACLResourceTypeDelegationToken, "*"),
}

func stop(kind kmsg.ACLResourceType, name string) rule {
	return rule{kind, name, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationAll, kmsg.ACLPermissionTypeDeny, "*"}
}

// rights are what a principal may do, and how much of it: its rules, and its quotas by
// what they are for.
type rights struct {
	rules  []rule
	quotas map[string]map[string]float64
}

// stopped returns those of stops that are there.
func (r rights) stopped() (out []rule) {
	for _, s := range stops {
		if slices.Contains(r.rules, s) {
			out = append(out, s)
		}
	}
	return out
}

// own is r without what stops a principal.
func (r rights) own() rights {
	r.rules = slices.DeleteFunc(slices.Clone(r.rules), func(x rule) bool { return slices.Contains(stops, x) })
	return r
}

func (r rights) empty() bool { return len(r.rules)+len(r.quotas) == 0 }

// differ says what one has and the other has not, or "".
func (r rights) differ(other rights) string { return rotation.Difference(r.lines(), other.lines()) }

func (r rights) lines() (out []string) {
	for _, x := range r.rules {
		out = append(out, x.String())
	}
	for of, values := range r.quotas {
		for key, value := range values {
			out = append(out, "quota "+key+"="+strconv.FormatFloat(value, 'f', -1, 64)+of)
		}
	}
	slices.Sort(out)
	return out
}

// rightsOf returns what one broker knows of a principal.
func rightsOf(principal string) func(context.Context, broker) (rights, error) {
	return func(ctx context.Context, b broker) (r rights, err error) {
		if r.rules, err = rulesOf(ctx, b, principal); err != nil {
			return r, err
		}
		r.quotas, err = quotasOf(ctx, b, principal)
		return r, err
	}
}

// rights returns what a broker knows of a principal.
func (c *cluster) rights(ctx context.Context, principal string) (r rights, err error) {
	err = c.any(ctx, fmt.Sprintf("reading the ACLs and quotas of %q", principal), func(ctx context.Context, b broker) (err error) {
		r, err = rightsOf(principal)(ctx, b)
		return err
	})
	return r, err
}

func rulesOf(ctx context.Context, b broker, principal string) (out []rule, err error) {
	request := kmsg.NewPtrDescribeACLsRequest()
	request.ResourceType, request.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	request.Operation, request.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	request.Principal = kmsg.StringPtr("User:" + principal)
	resp, err := ask[*kmsg.DescribeACLsResponse](ctx, b, request)
	if err != nil {
		return nil, err
	}
	if err := refusalOf(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			out = append(out, rule{r.ResourceType, r.ResourceName, r.ResourcePatternType, a.Operation, a.PermissionType, a.Host})
		}
	}
	return out, nil
}

// add gives a principal rules; those that it has stay.
func (c *cluster) add(ctx context.Context, principal string, rules []rule) error {
	if len(rules) == 0 {
		return nil
	}
	return c.change(ctx, fmt.Sprintf("making ACLs of %q", principal), func(ctx context.Context, b broker) error {
		request := kmsg.NewPtrCreateACLsRequest()
		for _, r := range rules {
			request.Creations = append(request.Creations, kmsg.CreateACLsRequestCreation{ResourceType: r.kind, ResourceName: r.name, ResourcePatternType: r.pattern,
				Principal: "User:" + principal, Host: r.host, Operation: r.operation, PermissionType: r.permission})
		}
		resp, err := ask[*kmsg.CreateACLsResponse](ctx, b, request)
		if err != nil {
			return err
		}
		return refusalIn(resp.Results, func(r kmsg.CreateACLsResponseResult) (int16, *string) { return r.ErrorCode, r.ErrorMessage })
	})
}

// remove takes rules from a principal; those that it has not stay away.
func (c *cluster) remove(ctx context.Context, principal string, rules []rule) error {
	if len(rules) == 0 {
		return nil
	}
	return c.change(ctx, fmt.Sprintf("removing ACLs of %q", principal), func(ctx context.Context, b broker) error {
		request := kmsg.NewPtrDeleteACLsRequest()
		for _, r := range rules {
			request.Filters = append(request.Filters, kmsg.DeleteACLsRequestFilter{ResourceType: r.kind, ResourceName: kmsg.StringPtr(r.name), ResourcePatternType: r.pattern,
				Principal: kmsg.StringPtr("User:" + principal), Host: kmsg.StringPtr(r.host), Operation: r.operation, PermissionType: r.permission})
		}
		resp, err := ask[*kmsg.DeleteACLsResponse](ctx, b, request)
		if err != nil {
			return err
		}
		return refusalIn(resp.Results, func(r kmsg.DeleteACLsResponseResult) (int16, *string) { return r.ErrorCode, r.ErrorMessage })
	})
}

// level gives a principal what another one has, and no more, and returns it; what stops it stays.
func (c *cluster) level(ctx context.Context, from, to string) (want rights, err error) {
	if want, err = c.rights(ctx, from); err != nil {
		return want, err
	}
	has, err := c.rights(ctx, to)
	if err != nil {
		return want, err
	}
	want, has = want.own(), has.own()
	without := func(rules, others []rule) []rule {
		return slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return slices.Contains(others, r) })
	}
	if err := c.add(ctx, to, without(want.rules, has.rules)); err != nil {
		return want, err
	}
	if err := c.remove(ctx, to, without(has.rules, want.rules)); err != nil {
		return want, err
	}
	if maps.EqualFunc(want.quotas, has.quotas, maps.Equal) {
		return want, nil
	}
	return want, c.setQuotas(ctx, to, want.quotas, has.quotas)
}
