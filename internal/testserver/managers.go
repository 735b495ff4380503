package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// NewManagers starts a Swarm of n managers, each of which may have tasks, as long as the
// test runs. They are three daemons on addresses of their own: tasks use [HostNetwork].
func NewManagers(t testing.TB, n int) []*Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	managers := []*Engine{NewEngine(t, EngineOptions{})}
	for range n - 1 {
		e := NewEngine(t, EngineOptions{NoSwarm: true})
		Require(t, e.join(ctx, managers[0]))
		managers = append(managers, e)
	}
	return managers
}

// join makes the engine a manager of another one's Swarm.
func (e *Engine) join(ctx context.Context, other *Engine) error {
	if err := e.makeBridge(ctx); err != nil {
		return err
	}
	s, err := other.client.SwarmInspect(ctx)
	if err != nil {
		return fmt.Errorf("asking for the token of managers: %w", err)
	}
	err = e.client.SwarmJoin(ctx, swarm.JoinRequest{ListenAddr: e.ManagerAddr(), AdvertiseAddr: e.addr,
		RemoteAddrs: []string{other.ManagerAddr()}, JoinToken: s.JoinTokens.Manager, Availability: swarm.NodeAvailabilityActive})
	if err != nil {
		return fmt.Errorf("joining the Swarm: %w", err)
	}
	e.opts.NoSwarm = false
	return nil
}

// ManagerAddr is where the engine's manager is, as the nodes of its Swarm name it.
func (e *Engine) ManagerAddr() string { return e.addr + ":2377" }

// Leader returns the engine that leads the Swarm of managers, as one of them says.
func Leader(ctx context.Context, asked *Engine, managers []*Engine) (*Engine, error) {
	nodes, err := asked.client.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the nodes: %w", err)
	}
	for _, n := range nodes {
		if n.ManagerStatus == nil || !n.ManagerStatus.Leader {
			continue
		}
		for _, e := range managers {
			if n.ManagerStatus.Addr == e.ManagerAddr() {
				return e, nil
			}
		}
	}
	return nil, errors.New("the Swarm has no leader")
}

// CutOff stops the daemon, and none of its tasks: nobody hears from the node any more,
// as when the network to it is gone. [Engine.Reconnect] ends that.
func (e *Engine) CutOff() error { return e.signalDaemon(syscall.SIGSTOP) }

// Reconnect lets the daemon go on after [Engine.CutOff].
func (e *Engine) Reconnect() error { return e.signalDaemon(syscall.SIGCONT) }

// signalDaemon finds dockerd under the machine's number for it: the daemon itself knows
// that of its namespace alone.
func (e *Engine) signalDaemon(s syscall.Signal) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		args := strings.Split(string(text), "\x00")
		if err != nil || filepath.Base(args[0]) != "dockerd" || !strings.Contains(string(text), e.path("daemon.json")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		return syscall.Kill(pid, s)
	}
	return errors.New("signalling dockerd: it does not run")
}
