package directory

import (
	"context"

	"github.com/keyturn/keyturn/internal/rotation"
)

// At makes the target tell f of each effect on the file system.
func (t *Target) At(f func(point string)) { t.at = f }

// Verify returns nil if the version is there with exactly these fields and
// bytes. It tells nothing else of what is there.
func (t *Target) Verify(_ context.Context, v rotation.Version, m rotation.Material) error {
	verify := func() error {
		p, err := placeOf(v)
		if err != nil {
			return err
		}
		all, err := t.fields(v, m)
		if err != nil {
			return err
		}
		h, err := t.open(v.Credential, false)
		if err != nil {
			return err
		}
		defer h.close()
		return h.equal(p, all)
	}
	if err := verify(); err != nil {
		return about("verifying", v, err)
	}
	return nil
}
