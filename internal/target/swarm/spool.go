package swarm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

// ErrTaken is the error of a piece whose number is taken.
var ErrTaken = errors.New("the number is taken")

// A Spool keeps numbered pieces of text in the Swarm, each a config of its own,
// so that every run that reaches a manager reads them. No value belongs into it:
// configs are no secrets.
type Spool struct {
	engine engine
	owner  string // what the pieces are of
	prefix string
}

// Spool returns the pieces of an owner, such as a journal's place.
func (t *Target) Spool(owner string) *Spool {
	sum := sha256.Sum256([]byte(owner))
	return &Spool{engine: t.engine, owner: owner, prefix: "keyturn.journal." + hex.EncodeToString(sum[:4]) + "."}
}

// Pieces returns every piece, by number.
func (s *Spool) Pieces(ctx context.Context) (map[int64][]byte, error) {
	out := map[int64][]byte{}
	err := s.each(ctx, func(number int64, c swarm.Config) { out[number] = c.Spec.Data })
	return out, err
}

func (s *Spool) each(ctx context.Context, do func(int64, swarm.Config)) error {
	list, err := s.engine.ConfigList(ctx, swarm.ConfigListOptions{Filters: filters.NewArgs(filters.Arg("name", s.prefix))})
	if err != nil {
		return fault(fmt.Errorf("listing configs: %w", err))
	}
	for _, c := range list {
		digits, ours := strings.CutPrefix(c.Spec.Name, s.prefix)
		if number, err := strconv.ParseInt(digits, 10, 64); ours && err == nil {
			do(number, c)
		}
	}
	return nil
}

// Put keeps a piece. A number that is taken is [ErrTaken].
func (s *Spool) Put(ctx context.Context, number int64, piece []byte) error {
	_, err := s.engine.ConfigCreate(ctx, swarm.ConfigSpec{
		Annotations: swarm.Annotations{Name: s.prefix + strconv.FormatInt(number, 10), Labels: map[string]string{labelJournal: s.owner}},
		Data:        piece,
	})
	if errdefs.IsConflict(err) || errdefs.IsAlreadyExists(err) {
		return ErrTaken
	}
	if err != nil {
		return fault(fmt.Errorf("keeping entries of the journal in the Swarm: %w", err))
	}
	return nil
}

// Drop removes pieces; those that are not there are no error.
func (s *Spool) Drop(ctx context.Context, numbers ...int64) error {
	var errs []error
	for _, number := range numbers {
		err := s.engine.ConfigRemove(ctx, s.prefix+strconv.FormatInt(number, 10))
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fault(fmt.Errorf("removing piece %d of the journal from the Swarm: %w", number, err)))
		}
	}
	return errors.Join(errs...)
}
