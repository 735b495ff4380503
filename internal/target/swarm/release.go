package swarm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/docker/docker/api/types/swarm"
)

// releaseOf returns what is shipped in a service when a move of it is begun;
// for one whose move was cut off, what was shipped then.
func (m *move) releaseOf(s service) string {
	if m.release != "" {
		return m.release
	}
	if k, ok := markOf(s.Spec.Labels); ok && k.Release != "" {
		return k.Release
	}
	return m.fingerprint(s.Spec.TaskTemplate)
}

// fingerprint returns the same for two specs of tasks that differ in nothing
// but what is ours.
func (m *move) fingerprint(t swarm.TaskSpec) string {
	t.ForceUpdate = 0 // the same once more
	t.Runtime = ""    // the engine names it for services only
	if t.ContainerSpec != nil {
		c, rest := *t.ContainerSpec, foreign(taskView(t), m.shifts)
		c.Env, c.Secrets = rest.Env, rest.Secrets
		t.ContainerSpec = &c
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err.Error() // it was read as JSON
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
