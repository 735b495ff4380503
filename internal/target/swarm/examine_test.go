package swarm_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	swarmtypes "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// authority is a root certificate that ends after a time.
func authority(t *testing.T, now time.Time, life time.Duration) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// nodes makes a manager or a worker of each letter: M and W are there, m and w
// are away.
func nodes(letters string) []swarmtypes.Node {
	var out []swarmtypes.Node
	for i, l := range letters {
		n := swarmtypes.Node{Description: swarmtypes.NodeDescription{Hostname: "node" + string(rune('1'+i))}}
		n.Status.State = swarmtypes.NodeStateReady
		if strings.ContainsRune("mw", l) {
			n.Status.State = swarmtypes.NodeStateDown
		}
		switch l {
		case 'M':
			n.ManagerStatus = &swarmtypes.ManagerStatus{Reachability: swarmtypes.ReachabilityReachable}
		case 'm':
			n.ManagerStatus = &swarmtypes.ManagerStatus{Reachability: swarmtypes.ReachabilityUnreachable}
		}
		out = append(out, n)
	}
	return out
}

// TestExamine says of a Swarm what is wrong with it, and of a good one that it is.
func TestExamine(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tt := range []struct {
		name, nodes string
		autolock    bool
		root        time.Duration
		skew        time.Duration
		want        []string // the warnings
	}{
		{"all is well", "MMMWW", true, 3650 * day, time.Second, nil},
		{"one manager alone", "M", true, 3650 * day, 0, nil},
		{"no autolock", "MMM", false, 3650 * day, 0, []string{"autolock is off"}},
		{"a manager is away", "MMmWW", true, 3650 * day, 0, []string{"node node3 is down", "2 of 3 managers can be reached, 0 more may be lost"}},
		{"one of five is away", "MMMMm", true, 3650 * day, 0, []string{"node node5 is down", "4 of 5 managers can be reached, 1 more may be lost"}},
		{"two managers", "MMW", true, 3650 * day, 0, []string{"2 managers: with one lost, nothing can be changed"}},
		{"a worker is away", "MMMw", true, 3650 * day, 0, []string{"node node4 is down"}},
		{"the authority ends", "M", true, 20 * day, 0, []string{"the Swarm's own authority ends 2026-03-21"}},
		{"the clock is behind", "M", true, 3650 * day, -2 * time.Minute, []string{"the engine's clock is -2m0s away from ours"}},
	} {
		c := &swarmtypes.ClusterInfo{TLSInfo: swarmtypes.TLSInfo{TrustRoot: authority(t, now, tt.root)}}
		c.Spec.EncryptionConfig.AutoLockManagers = tt.autolock
		var got []string
		for _, r := range swarm.ExamineCluster(c, nodes(tt.nodes), now.Add(tt.skew).Format(time.RFC3339Nano), now) {
			if r.Level == rotation.Fine {
				continue
			}
			if got = append(got, r.Text); r.Hint == "" {
				t.Errorf("%s: %q has no hint", tt.name, r.Text)
			}
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: %q, want %q", tt.name, got[i], want)
			}
		}
	}
}
