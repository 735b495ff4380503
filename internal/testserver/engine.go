package testserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// HostNetwork is the network of services whose tasks run in the machine's own
// network: the target of a swarm.NetworkAttachmentConfig.
const HostNetwork = "host"

// EngineOptions say how an engine is started. The zero value is a usable Swarm
// manager.
type EngineOptions struct {
	// NoSwarm leaves the engine outside of any Swarm.
	NoSwarm bool
	// TLS lets the engine listen on a port of its loopback address, too, for
	// clients with a certificate of [Engine.Authority] alone.
	TLS bool
	// Args are further arguments of dockerd.
	Args []string
	// StartTimeout bounds the start; zero means 60 seconds.
	StartTimeout time.Duration
}

// An Engine is a Docker engine of our own: own data, own containerd, own
// loopback address, and namespaces of its own for processes and mounts. It may
// stand beside any other engine on the machine. Process ids in its answers are
// those inside of its namespace; the machine's /proc shows the same processes
// under others.
type Engine struct {
	opts    EngineOptions
	dir     string
	addr    string // a loopback address that no other engine uses
	bridge  string
	gateway string
	pool    string // of the addresses on its overlay networks
	port    int    // of its VXLAN
	tls     *Authority
	client  *client.Client
	process *process
	guard   *guard
	stop    sync.Once
	stopErr error
}

// StartEngine starts a Docker engine and makes it a Swarm of one manager. It
// needs root, and dockerd and unshare on the PATH; if they are missing the error
// wraps [ErrMissing]. The caller calls [Engine.Stop].
func StartEngine(ctx context.Context, opts EngineOptions) (*Engine, error) {
	if err := engineAvailable(); err != nil {
		return nil, err
	}
	reap()
	if opts.StartTimeout == 0 {
		opts.StartTimeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, opts.StartTimeout)
	defer cancel()
	e := &Engine{opts: opts}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a Docker engine: %w", err), e.Stop())
	}
	return e, nil
}

// NewEngine starts an engine that is stopped at the end of the test. See
// [SharedEngine] for one that several tests use.
func NewEngine(t testing.TB, opts EngineOptions) *Engine {
	t.Helper()
	e, err := StartEngine(context.Background(), opts)
	Require(t, err)
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("stopping the engine: %v", err)
		}
	})
	return e
}

// engineAvailable says what is missing to start an engine.
func engineAvailable() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("starting a Docker engine needs root: %w", ErrMissing)
	}
	for _, program := range []string{"dockerd", "unshare", "containerd"} {
		if _, err := lookPath(program); err != nil {
			return fmt.Errorf("starting a Docker engine: no %s on the PATH, run .ci/install: %w", program, ErrMissing)
		}
	}
	return nil
}

// lookPath is exec.LookPath that also looks where Debian keeps daemons.
func lookPath(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

// start brings up the daemon, its bridge and the Swarm, in this order.
func (e *Engine) start(ctx context.Context) error {
	if err := e.choose(); err != nil {
		return err
	}
	var err error
	if e.guard, err = startGuard("engine", e.dir, e.bridge, e.cgroup(), strconv.Itoa(e.port), e.macs()); err != nil {
		return err
	}
	if err := e.prepareTLS(); err != nil {
		return err
	}
	if err := e.startDaemon(); err != nil {
		return err
	}
	e.client, err = client.NewClientWithOpts(client.WithHost(e.Host()), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	if err := e.waitReady(ctx); err != nil {
		return fmt.Errorf("%w; the end of its log: %s", err, e.logTail())
	}
	if e.opts.NoSwarm {
		return nil
	}
	return e.initSwarm(ctx)
}

// choose picks the folder and the addresses, all different from any other engine's.
func (e *Engine) choose() error {
	var err error
	if e.dir, err = tempDir("engine"); err != nil {
		return err
	}
	id := fmt.Sprintf("%08x", rand.Uint32())
	e.bridge = "ktgw" + id // 15 bytes at most
	for range 100 {
		// 198.18.0.0/15 is set aside for benchmarks (RFC 2544): nobody routes it. Addresses
		// of 100.64.0.0/10 (RFC 6598) are inside of overlay networks alone.
		n := rand.IntN(256)
		e.gateway, e.pool = fmt.Sprintf("198.18.%d.1", n), fmt.Sprintf("100.%d.%d.0/18", 64+n/4, n%4*64)
		e.addr = fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(64), rand.IntN(256), 1+rand.IntN(254))
		if free("tcp", 2376, []string{e.addr}) && free("tcp", 2377, []string{e.addr}) && free("tcp", 7946, []string{e.addr}) && !hasAddress(e.gateway) {
			e.port, err = freePort("udp", "0.0.0.0")
			return err
		}
	}
	return errors.New("finding a free loopback address: none of 100 tried")
}

// macs are the beginnings of the hardware addresses of its networks, for grep: they are made
// of the addresses there.
func (e *Engine) macs() string {
	ip, _, _ := net.ParseCIDR(e.pool)
	ip = ip.To4()
	gate := net.ParseIP(e.gateway).To4()
	all := []string{fmt.Sprintf("02:42:c6:12:%02x:", gate[2])}
	for third := int(ip[2]); third < int(ip[2])+64; third++ {
		all = append(all, fmt.Sprintf("02:42:64:%02x:%02x:", ip[1], third))
	}
	return strings.Join(all, "|")
}

// cgroup is the name of the control group that holds the engine's containers.
func (e *Engine) cgroup() string { return "keyturn-" + e.bridge }

// waitReady waits until the engine answers.
func (e *Engine) waitReady(ctx context.Context) error {
	for {
		if _, err := e.client.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-e.process.done:
			return errors.New("dockerd ended")
		case <-ctx.Done():
			return fmt.Errorf("waiting for dockerd: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// initSwarm makes the engine a manager. The bridge of Swarm's overlay networks
// is made first, with a device name and a subnet of its own: by itself Swarm
// would share one device, docker_gwbridge, between all engines of a machine.
func (e *Engine) initSwarm(ctx context.Context) error {
	if err := e.makeBridge(ctx); err != nil {
		return err
	}
	_, err := e.client.SwarmInit(ctx, swarm.InitRequest{
		ListenAddr:      e.ManagerAddr(),
		AdvertiseAddr:   e.addr,
		DataPathPort:    uint32(e.port),
		DefaultAddrPool: []string{e.pool},
		SubnetSize:      24,
	})
	if err != nil {
		return fmt.Errorf("initialising the Swarm: %w", err)
	}
	return e.removeIngress(ctx)
}

func (e *Engine) makeBridge(ctx context.Context) error {
	_, err := e.client.NetworkCreate(ctx, "docker_gwbridge", network.CreateOptions{
		Driver: "bridge",
		IPAM:   &network.IPAM{Config: []network.IPAMConfig{{Subnet: e.gateway[:len(e.gateway)-1] + "0/24", Gateway: e.gateway}}},
		Options: map[string]string{
			"com.docker.network.bridge.name":                 e.bridge,
			"com.docker.network.bridge.enable_icc":           "false",
			"com.docker.network.bridge.enable_ip_masquerade": "false",
		},
	})
	if err != nil {
		return fmt.Errorf("making the bridge: %w", err)
	}
	return nil
}

// removeIngress removes the network of published ports, which nobody uses here:
// as long as it is there the kernel listens for VXLAN on all addresses.
func (e *Engine) removeIngress(ctx context.Context) error {
	for {
		err := e.client.NetworkRemove(ctx, "ingress")
		if err == nil {
			return nil
		}
		select { // it may not have been made yet
		case <-ctx.Done():
			return fmt.Errorf("removing the ingress network: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Client returns a client of the engine. It is closed by Stop.
func (e *Engine) Client() *client.Client { return e.client }

// Host is the engine's address for DOCKER_HOST, docker -H and configurations:
// unix:// and the path of its socket.
func (e *Engine) Host() string { return "unix://" + e.path("docker.sock") }

// Dir is the engine's folder, which Stop removes. Tests may put files there
// that tasks mount.
func (e *Engine) Dir() string { return e.dir }

// GatewayIP is the machine's address as tasks on overlay networks reach it.
func (e *Engine) GatewayIP() string { return e.gateway }

// Pid is the id of the process with which the whole engine ends.
func (e *Engine) Pid() int { return e.process.pid() }

// LogText returns what dockerd has logged.
func (e *Engine) LogText() (string, error) {
	data, err := os.ReadFile(e.path("dockerd.log"))
	if err != nil {
		return "", fmt.Errorf("reading the engine's log: %w", err)
	}
	return string(data), nil
}

// Crash ends the engine with all its containers at once, as a power failure does. What
// it has stored stays, for [Engine.Restart]. When Crash returns, nothing answers any more:
// the kernel ends what is in the engine's namespaces after their first process.
func (e *Engine) Crash() {
	e.process.kill()
	for {
		conn, err := net.Dial("unix", e.path("docker.sock"))
		if err != nil {
			return
		}
		_ = conn.Close()
		time.Sleep(5 * time.Millisecond)
	}
}

// Restart starts an engine again after [Engine.Crash], and waits until it manages its
// Swarm.
func (e *Engine) Restart(ctx context.Context) error {
	for _, left := range []string{"exec", "docker.sock", "dockerd.pid"} {
		if err := os.RemoveAll(e.path(left)); err != nil {
			return fmt.Errorf("restarting the Docker engine: %w", err)
		}
	}
	if err := e.startDaemon(); err != nil {
		return fmt.Errorf("restarting the Docker engine: %w", err)
	}
	if err := e.waitReady(ctx); err != nil {
		return fmt.Errorf("restarting the Docker engine: %w; the end of its log: %s", err, e.logTail())
	}
	for {
		info, err := e.client.Info(ctx)
		if err == nil && (e.opts.NoSwarm || info.Swarm.ControlAvailable && info.Swarm.Nodes > 0) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restarting the Docker engine: waiting for its Swarm: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends the engine with all its containers at once, and removes
// everything it has made. It may be called again.
func (e *Engine) Stop() error {
	e.stop.Do(func() {
		if e.client != nil {
			e.stopErr = e.client.Close()
		}
		if e.process != nil {
			e.process.kill()
		}
		if e.guard != nil {
			e.stopErr = errors.Join(e.stopErr, e.guard.close())
		} else if e.dir != "" {
			e.stopErr = errors.Join(e.stopErr, os.RemoveAll(e.dir))
		}
		if e.stopErr != nil {
			e.stopErr = fmt.Errorf("stopping the Docker engine: %w", e.stopErr)
		}
	})
	return e.stopErr
}

func (e *Engine) path(name string) string { return filepath.Join(e.dir, name) }

// logTail is the end of the log, for errors.
func (e *Engine) logTail() string { return tailOf(e.path("dockerd.log")) }
