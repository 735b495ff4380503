package swarm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

// A Copy keeps what is elsewhere in the Swarm, too, in parts that follow each other, so
// that every run that reaches a manager reads it when that other place does not answer.
// No value belongs into it: configs are no secrets.
type Copy struct {
	engine engine
	owner  string
	prefix string
}

// A Part is a part of a copy: the numbers of its first and its last entry, and its text.
type Part struct {
	First, Last int64
	Data        []byte
}

// MaxPart is how large a part may be, in bytes: less than Swarm's limit of a config.
const MaxPart = 400 << 10

// Copy returns the copy of what an owner names.
func (t *Target) Copy(owner string) *Copy {
	sum := sha256.Sum256([]byte(owner))
	return &Copy{engine: t.engine, owner: owner, prefix: "keyturn.copy." + hex.EncodeToString(sum[:4]) + "."}
}

// Parts returns the parts, each of which follows the one before. Of two that begin with
// the same entry the longer one is the newer.
func (c *Copy) Parts(ctx context.Context) ([]Part, error) {
	all, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	longest := map[int64]Part{}
	for _, p := range all {
		if p.Last >= longest[p.First].Last {
			longest[p.First] = p
		}
	}
	var out []Part
	for next := int64(1); ; {
		p, ok := longest[next]
		if !ok {
			return out, nil
		}
		out, next = append(out, p), p.Last+1
	}
}

// Put keeps a part, and removes those that begin with the same entry and are shorter.
func (c *Copy) Put(ctx context.Context, p Part) error {
	_, err := c.engine.ConfigCreate(ctx, swarm.ConfigSpec{
		Annotations: swarm.Annotations{Name: c.name(p), Labels: map[string]string{labelJournal: c.owner}}, Data: p.Data})
	if err != nil && !errdefs.IsConflict(err) && !errdefs.IsAlreadyExists(err) {
		return fault(fmt.Errorf("keeping a copy in the Swarm: %w", err))
	}
	all, err := c.all(ctx)
	if err != nil {
		return err
	}
	for _, old := range all {
		if old.First != p.First || old.Last >= p.Last {
			continue
		}
		if err := c.engine.ConfigRemove(ctx, c.name(old)); err != nil && !errdefs.IsNotFound(err) {
			return fault(fmt.Errorf("removing an old copy from the Swarm: %w", err))
		}
	}
	return nil
}

func (c *Copy) all(ctx context.Context) ([]Part, error) {
	list, err := c.engine.ConfigList(ctx, swarm.ConfigListOptions{Filters: filters.NewArgs(filters.Arg("name", c.prefix))})
	if err != nil {
		return nil, fault(fmt.Errorf("listing configs: %w", err))
	}
	var out []Part
	for _, config := range list {
		p := Part{Data: config.Spec.Data}
		numbers, ours := strings.CutPrefix(config.Spec.Name, c.prefix)
		if _, err := fmt.Sscanf(numbers, "%d-%d", &p.First, &p.Last); ours && err == nil && p.First <= p.Last {
			out = append(out, p)
		}
	}
	return out, nil
}

func (c *Copy) name(p Part) string { return fmt.Sprintf("%s%d-%d", c.prefix, p.First, p.Last) }
