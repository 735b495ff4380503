package swarm

import (
	"encoding/json"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Apply is apply on the JSON of a spec, as a move makes it.
func Apply(spec json.RawMessage, shifts []rotation.Shift) (json.RawMessage, error) {
	var typed swarm.ServiceSpec
	if err := json.Unmarshal(spec, &typed); err != nil {
		return nil, err
	}
	next, err := apply(viewOf(typed), shifts, func(credential, field string) string { return credential + "_" + field })
	if err != nil {
		return nil, err
	}
	return patch(spec, next)
}

// Before is the snapshot of a spec for a placement.
func Before(spec json.RawMessage, p rotation.Placement) (json.RawMessage, error) {
	var typed swarm.ServiceSpec
	if err := json.Unmarshal(spec, &typed); err != nil {
		return nil, err
	}
	b := before{ID: "svc", Env: map[string]string{}}
	b.note(viewOf(typed), p)
	return json.Marshal(b)
}

// ExamineCluster is what an examination says of a Swarm and its nodes.
func ExamineCluster(c *swarm.ClusterInfo, nodes []swarm.Node, theirs string, ours time.Time) []rotation.Remark {
	r := examination{}
	r.clock(theirs, ours)
	r.cluster(c)
	r.managers(nodes)
	r.authority(c, ours)
	return r.found
}

// Place returns why the tasks of a service that start first find no place.
func Place(s swarm.Service, r rotation.Rollout, nodes []swarm.Node, services []swarm.Service, tasks []swarm.Task) string {
	return place(service{Service: s}, r, nodes, services, tasks)
}

// DialHint is what may mend why a relay on networks could not connect.
func DialHint(text string, networks ...string) string {
	return rotation.HintOf(dialError{text, networks})
}
