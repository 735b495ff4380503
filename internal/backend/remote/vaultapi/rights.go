package vaultapi

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// Able checks that every server is there and unsealed, and what [Client.Rights] does.
func (c *Client) Able(ctx context.Context, needs map[string][]string) error {
	if err := c.Ready(ctx); err != nil {
		return err
	}
	return c.Rights(ctx, needs)
}

// Rights refuses an administrator's token that may not do what is needed: the capabilities, by
// path.
func (c *Client) Rights(ctx context.Context, needs map[string][]string) error {
	var paths []string
	for path := range needs {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	may := map[string][]string{}
	if _, err := c.Write(ctx, "asking what its token may do", "sys/capabilities-self", map[string]any{"paths": paths}, &onlyLists{may}); err != nil {
		return err
	}
	var lacks []string
	for _, path := range paths {
		if slices.Contains(may[path], "root") {
			continue
		}
		for _, need := range needs[path] {
			if !slices.Contains(may[path], need) {
				lacks = append(lacks, need+" on "+path)
			}
		}
	}
	if len(lacks) > 0 {
		return c.Refused("the policy that it needs stands in docs/backends/"+c.Page, "the administrator's token lacks %s", strings.Join(lacks, ", "))
	}
	return nil
}

// onlyLists takes from an answer what is a list of texts: the rest says the same again.
type onlyLists struct{ into map[string][]string }

// UnmarshalJSON implements json.Unmarshaler.
func (o *onlyLists) UnmarshalJSON(b []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for key, value := range all {
		var texts []string
		if json.Unmarshal(value, &texts) == nil {
			o.into[key] = texts
		}
	}
	return nil
}
