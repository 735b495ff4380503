package testserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"

	"github.com/keyturn/keyturn/internal/testserver"
)

func TestEnginesStandSideBySideAndLeaveNothing(t *testing.T) {
	var engines []*testserver.Engine
	for range 2 {
		e, err := testserver.StartEngine(t.Context(), testserver.EngineOptions{})
		testserver.Require(t, err)
		defer e.Stop()
		engines = append(engines, e)
	}
	for _, e := range engines {
		info, err := e.Client().Info(t.Context())
		if err != nil || !info.Swarm.ControlAvailable {
			t.Fatalf("Info() = %+v, %v, want a manager", info.Swarm, err)
		}
		checkPrivate(t, e)
		checkClosed(t, info.Swarm.Cluster.DataPathPort)
	}
	// Stop needs no note of its own: a start may fail before it is written.
	if err := os.Remove(filepath.Join(engines[0].Dir(), "pid")); err != nil {
		t.Error(err)
	}
	for _, e := range engines {
		bridge := bridgeOf(t, e)
		if err := e.Stop(); err != nil {
			t.Errorf("Stop() = %v", err)
		}
		if left := traces(t, e.Dir(), bridge); len(left) > 0 {
			t.Errorf("Stop() left %q", left)
		}
	}
}

// checkPrivate checks that the engine makes its folders where it has mounted
// something over all that the machine has.
func checkPrivate(t *testing.T, e *testserver.Engine) {
	t.Helper()
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", e.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"/run", "/etc", "/opt"} {
		if !strings.Contains(string(mounts), "tmpfs "+folder+" tmpfs ") {
			t.Errorf("in the engine %s is the machine's", folder)
		}
		for _, inside := range []string{"docker", "containerd"} {
			if strings.Contains(string(mounts), " "+filepath.Join(folder, inside)+" ") {
				t.Errorf("the engine has a mount on %s/%s, which somebody else may remove", folder, inside)
			}
		}
	}
}

// checkClosed checks that the kernel listens on the port of Swarm's overlay
// networks for a moment at most.
func checkClosed(t *testing.T, port uint32) {
	t.Helper()
	socket := fmt.Sprintf("00000000:%04X", port)
	var table []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var err error
		if table, err = os.ReadFile("/proc/net/udp"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(table), socket) {
			return
		}
	}
	t.Errorf("the kernel listens on UDP port %d of every address though no overlay network is there:\n%s", port, table)
}

// bridgeOf is the device of the engine's bridge.
func bridgeOf(t *testing.T, e *testserver.Engine) string {
	t.Helper()
	n, err := e.Client().NetworkInspect(t.Context(), "docker_gwbridge", network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Options["com.docker.network.bridge.name"]
}
