package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a quota of a user is for: all its clients, every one that has none of its own, or one.
const (
	ofAll     = ""
	ofDefault = " of any client-id"
	ofOne     = " of client-id "
)

const (
	entityUser   = "user"
	entityClient = "client-id"
)

// quotasOf returns the quotas of a principal that one broker knows.
func quotasOf(ctx context.Context, b broker, principal string) (map[string]map[string]float64, error) {
	request := kmsg.NewPtrDescribeClientQuotasRequest()
	request.Components = []kmsg.DescribeClientQuotasRequestComponent{{EntityType: entityUser, MatchType: kmsg.QuotasMatchTypeExact, Match: &principal}}
	resp, err := ask[*kmsg.DescribeClientQuotasResponse](ctx, b, request)
	if err != nil {
		return nil, err
	}
	if err := refusalOf(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	out := map[string]map[string]float64{}
	for _, entry := range resp.Entries {
		of := ofAll
		for _, e := range entry.Entity {
			switch {
			case e.Type == entityUser:
			case e.Name == nil:
				of = ofDefault
			default:
				of = ofOne + *e.Name
			}
		}
		out[of] = map[string]float64{}
		for _, v := range entry.Values {
			out[of][v.Key] = v.Value
		}
	}
	return out, nil
}

// setQuotas gives a principal the quotas that are wanted, and takes from it those it has beside.
func (c *cluster) setQuotas(ctx context.Context, principal string, want, has map[string]map[string]float64) error {
	all := maps.Clone(want)
	maps.Copy(all, has)
	return c.change(ctx, fmt.Sprintf("setting the quotas of %q", principal), func(ctx context.Context, b broker) error {
		request := kmsg.NewPtrAlterClientQuotasRequest()
		for _, of := range slices.Sorted(maps.Keys(all)) {
			entry := kmsg.AlterClientQuotasRequestEntry{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: entityUser, Name: &principal}}}
			if of == ofDefault {
				entry.Entity = append(entry.Entity, kmsg.AlterClientQuotasRequestEntryEntity{Type: entityClient})
			} else if of != ofAll {
				entry.Entity = append(entry.Entity, kmsg.AlterClientQuotasRequestEntryEntity{Type: entityClient, Name: kmsg.StringPtr(strings.TrimPrefix(of, ofOne))})
			}
			for key, value := range want[of] {
				entry.Ops = append(entry.Ops, kmsg.AlterClientQuotasRequestEntryOp{Key: key, Value: value})
			}
			for key := range has[of] {
				if _, wanted := want[of][key]; !wanted {
					entry.Ops = append(entry.Ops, kmsg.AlterClientQuotasRequestEntryOp{Key: key, Remove: true})
				}
			}
			request.Entries = append(request.Entries, entry)
		}
		resp, err := ask[*kmsg.AlterClientQuotasResponse](ctx, b, request)
		if err != nil {
			return err
		}
		return refusalIn(resp.Entries, func(e kmsg.AlterClientQuotasResponseEntry) (int16, *string) { return e.ErrorCode, e.ErrorMessage })
	})
}
