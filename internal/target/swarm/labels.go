package swarm

import (
	"context"
	"maps"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// The labels of what we make. They are a copy of what the journal knows.
const (
	labelCredential = "keyturn.credential"
	labelVersion    = "keyturn.version"
	labelRotation   = "keyturn.rotation" // on services: the rotation that moved it last
	labelUpdate     = "keyturn.update"   // on services that are being moved: a mark, as JSON
	labelRelay      = "keyturn.relay"    // on relays
	labelProbe      = "keyturn.probe"    // on probes
	labelHolder     = "keyturn.holder"   // of a lease, as JSON
	labelJournal    = "keyturn.journal"  // of entries that wait to be sent: the journal
)

// labels are those of a secret of the version, made by a rotation.
func labels(v rotation.Version, rotation string) map[string]string {
	l := map[string]string{labelCredential: v.Credential, labelVersion: strconv.Itoa(v.Number)}
	if rotation != "" {
		l[labelRotation] = rotation
	}
	return l
}

// bears reports whether the labels of a secret say that it is of the version.
func bears(s swarm.Secret, v rotation.Version) bool {
	return s.Spec.Labels[labelCredential] == v.Credential && s.Spec.Labels[labelVersion] == strconv.Itoa(v.Number)
}

// labelled returns labels with ours among them. The rotation that made an
// object is not replaced by another one.
func labelled(now, ours map[string]string) map[string]string {
	out := maps.Clone(now)
	if out == nil {
		out = map[string]string{}
	}
	for name, want := range ours {
		if out[name] == "" || name != labelRotation {
			out[name] = want
		}
	}
	return out
}

// relabel puts our labels back on the secrets that shifts know: the deployment
// of a stack that declares one replaces them. They are a copy, so that no move
// fails for one that cannot be put back; a lost lease is an error.
func (t *Target) relabel(ctx context.Context, shifts []rotation.Shift) error {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return err
	}
	want := map[string]map[string]string{} // id → labels
	for _, s := range shifts {
		versions := append([]rotation.Version{s.Main}, s.Known...)
		if s.Beside != nil {
			versions = append(versions, *s.Beside)
		}
		for _, v := range versions {
			made := "" // not on record for those before
			if v.State == rotation.Pending {
				made = s.Rotation
			}
			for field, o := range v.Objects {
				if t.numberIn(v.Credential, field, o.Name) == v.Number { // an adopted one is not ours to label
					want[o.ID] = labels(v, made)
				}
			}
		}
	}
	for _, s := range list {
		next := labelled(s.Spec.Labels, want[s.ID])
		if want[s.ID] == nil || maps.Equal(next, s.Spec.Labels) {
			continue
		}
		if err := t.labelSecret(ctx, s, next); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) labelSecret(ctx context.Context, s swarm.Secret, labels map[string]string) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	spec := s.Spec
	spec.Labels = labels
	if err := t.engine.SecretUpdate(ctx, s.ID, s.Version, spec); err != nil {
		t.Logger.Warn("putting the labels of a secret back", "secret", s.Spec.Name, "error", err)
		return nil
	}
	t.Logger.Info("the labels of a secret were gone, and are back", "secret", s.Spec.Name)
	return nil
}
