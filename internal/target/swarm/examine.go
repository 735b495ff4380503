package swarm

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"

	"github.com/keyturn/keyturn/internal/rotation"
)

var _ rotation.Examiner = (*Target)(nil)

const (
	oldestAPI = "1.41" // of engine 20.10, the oldest that this was tried on
	mostSkew  = time.Minute
	caSoon    = 90 * 24 * time.Hour
)

// Examine implements [rotation.Examiner]: the engine, its managers and nodes,
// autolock, the clock, the Swarm's authority, and the image of the probes.
func (t *Target) Examine(ctx context.Context) ([]rotation.Remark, error) {
	if err := t.engine.manager(ctx); err != nil {
		return nil, err
	}
	info, err := t.engine.Info(ctx)
	if err != nil {
		return nil, fault(fmt.Errorf("asking the engine: %w", err))
	}
	r := examination{}
	r.engine(info, t.engine.ClientVersion(), t.engine.DaemonHost())
	r.clock(info.SystemTime, t.Now())
	r.cluster(info.Swarm.Cluster)
	nodes, err := t.engine.nodes(ctx)
	if err != nil {
		return r.found, err
	}
	r.managers(nodes)
	r.authority(info.Swarm.Cluster, t.Now())
	t.examineImage(ctx, &r, len(nodes))
	return r.found, nil
}

// An examination gathers remarks.
type examination struct{ found []rotation.Remark }

func (r *examination) say(level rotation.Level, hint, format string, args ...any) {
	r.found = append(r.found, rotation.Remark{Level: level, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (r *examination) engine(info system.Info, api, host string) {
	if versions.LessThan(api, oldestAPI) {
		r.say(rotation.Problem, "update it to 20.10 or later", "engine %s at %s is too old (API %s)", info.ServerVersion, host, api)
		return
	}
	r.say(rotation.Fine, "", "engine %s at %s, a manager", info.ServerVersion, host)
}

func (r *examination) clock(theirs string, ours time.Time) {
	at, err := time.Parse(time.RFC3339Nano, theirs)
	if err != nil {
		return // an engine that does not say
	}
	if skew := at.Sub(ours); skew > mostSkew || skew < -mostSkew {
		r.say(rotation.Warning, "set the clocks: leases and overlaps are counted by ours", "the engine's clock is %s away from ours", skew.Round(time.Second))
		return
	}
	r.say(rotation.Fine, "", "the engine's clock is ours")
}

func (r *examination) cluster(c *swarm.ClusterInfo) {
	switch {
	case c == nil:
	case c.Spec.EncryptionConfig.AutoLockManagers:
		r.say(rotation.Fine, "", "autolock is on: a manager that was restarted is of no use until somebody runs docker swarm unlock")
	default:
		r.say(rotation.Warning, "docker swarm update --autolock=true, and keep the key that it prints: a restarted manager then waits for docker swarm unlock",
			"autolock is off: whoever has a manager's disk can read every secret of the Swarm")
	}
	if c != nil && c.RootRotationInProgress {
		r.say(rotation.Warning, "docker swarm ca --rotate shows how far it is", "the Swarm changes its authority: nodes may be away for a while")
	}
}

func (r *examination) managers(nodes []swarm.Node) {
	all, up, away := 0, 0, 0
	for _, n := range nodes {
		if n.ManagerStatus != nil {
			all++
			if n.ManagerStatus.Reachability == swarm.ReachabilityReachable {
				up++
			}
		}
		if n.Status.State != swarm.NodeStateReady {
			away++
			r.say(rotation.Warning, "docker node ls; docker node rm takes away what never comes back", "node %s is %s", n.Description.Hostname, n.Status.State)
		}
	}
	spare := up - (all/2 + 1)
	switch {
	case up < all:
		r.say(rotation.Warning, "docker node ls says which; bring it back before anything else fails", "%d of %d managers can be reached, %d more may be lost", up, all, max(spare, 0))
	case spare == 0 && all > 1:
		r.say(rotation.Warning, "make them three", "%d managers: with one lost, nothing can be changed", all)
	default:
		r.say(rotation.Fine, "", "%d of %d managers reachable, %d of %d nodes ready", up, all, len(nodes)-away, len(nodes))
	}
}

func (r *examination) authority(c *swarm.ClusterInfo, now time.Time) {
	if c == nil {
		return
	}
	block, _ := pem.Decode([]byte(c.TLSInfo.TrustRoot))
	if block == nil {
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err == nil && cert.NotAfter.Sub(now) < caSoon {
		r.say(rotation.Warning, "docker swarm ca --rotate", "the Swarm's own authority ends %s", cert.NotAfter.UTC().Format(time.DateOnly))
	}
}

// examineImage looks whether the nodes have the image of the probes, or can get
// it. What other nodes have cannot be seen from a manager.
func (t *Target) examineImage(ctx context.Context, r *examination, nodes int) {
	const hint = "docker pull it on every node, or push it to a registry that they reach; see docs/configuration.md"
	image, err := t.engine.ImageInspect(ctx, t.ProbeImage)
	switch {
	case err == nil && nodes > 1 && len(image.RepoDigests) == 0:
		r.say(rotation.Warning, hint, "the image of the probes, %s, is of no registry: the other nodes must have it, too", t.ProbeImage)
	case err == nil:
		r.say(rotation.Fine, "", "the image of the probes, %s, is here", t.ProbeImage)
	case !errdefs.IsNotFound(err):
		r.say(rotation.Warning, "", "whether the image of the probes is here cannot be told: %v", err)
	default:
		if _, err := t.engine.DistributionInspect(ctx, t.ProbeImage, ""); err != nil {
			r.say(rotation.Problem, hint, "the image of the probes, %s, is neither here nor in a registry that this manager reaches", t.ProbeImage)
			return
		}
		r.say(rotation.Fine, "", "the image of the probes, %s, is in its registry", t.ProbeImage)
	}
}

// SecretNames returns the names of every secret of the Swarm.
func (t *Target) SecretNames(ctx context.Context) ([]string, error) {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Spec.Name)
	}
	return names, nil
}
