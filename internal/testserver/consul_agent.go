package testserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// place finds room for an agent.
func (c *Consul) place(name string) (err error) {
	s := &consulServer{name: name, dir: filepath.Join(c.dir, name)}
	for _, port := range []*int{&s.https, &s.serf, &s.rpc} {
		if *port, err = freePort("tcp", "127.0.0.1"); err != nil {
			return err
		}
	}
	c.servers = append(c.servers, s)
	return nil
}

// AddClient starts a client agent with a gossip key and, in its configuration, a token of its
// own. It has the next number; more is added to its configuration.
func (c *Consul) AddClient(t testing.TB, name, gossip string, more map[string]any) (i int) {
	t.Helper()
	join := c.Serf()
	if err := c.place(name); err != nil {
		t.Fatal(err)
	}
	i = len(c.servers) - 1
	config := map[string]any{"server": false, "retry_join": join}
	maps.Copy(config, more)
	if err := errors.Join(c.write(c.servers[i], gossip, config), c.Start(i)); err != nil {
		t.Fatal(err)
	}
	return i
}

// write writes the configuration of an agent, which alone holds secrets: no argument does.
func (c *Consul) write(s *consulServer, gossip string, more map[string]any) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	cert, key, err := c.authority.Issue(Certificate{Names: []string{c.host, "127.0.0.1", "localhost"}})
	if err != nil {
		return err
	}
	wan, err := freePort("tcp", "127.0.0.1")
	if err != nil {
		return err
	}
	all := map[string]any{
		"node_name": s.name, "data_dir": filepath.Join(s.dir, "data"),
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "retry_interval": "1s", "encrypt": gossip, "disable_update_check": true,
		"gossip_wan": map[string]any{"gossip_interval": "200ms", "probe_interval": "1s", "probe_timeout": "500ms", "suspicion_mult": 4}, // as in the LAN
		"log_level":  "debug", "performance": map[string]any{"raft_multiplier": 1}, "leave_on_terminate": false,
		"ports": map[string]int{"http": -1, "https": s.https, "server": s.rpc, "serf_lan": s.serf, "serf_wan": wan, "dns": -1, "grpc": -1, "grpc_tls": -1},
		"acl":   map[string]any{"enabled": true, "default_policy": "deny", "tokens": map[string]string{"initial_management": c.management, "agent": c.management}},
		"tls":   map[string]any{"https": map[string]any{"cert_file": filepath.Join(s.dir, "cert.pem"), "key_file": filepath.Join(s.dir, "key.pem"), "tls_min_version": "TLSv1_2"}},
	}
	if c.netns != "" {
		all["client_addr"] = "0.0.0.0"
	}
	maps.Copy(all, more)
	config, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(s.dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(s.dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(s.dir, "consul.json"), config, 0o600))
}

// Program is the path of Consul's program.
func (c *Consul) Program() string { return c.program }

// Kill ends a server at once.
func (c *Consul) Kill(i int) { c.servers[i].process.kill() }

// LeaveWAN writes into a server's configuration that it takes no part in the WAN pool, which
// holds when it starts again.
func (c *Consul) LeaveWAN(i int) error {
	path := filepath.Join(c.servers[i].dir, "consul.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	config["ports"].(map[string]any)["serf_wan"] = -1
	if text, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Pause stops a server in its tracks, until Continue. It returns when every thread stands.
func (c *Consul) Pause(i int) error {
	pid := c.servers[i].process.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !bytes.Contains(stat, []byte(") T "))
		}) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// Continue lets a server go on.
func (c *Consul) Continue(i int) error {
	return c.servers[i].process.cmd.Process.Signal(syscall.SIGCONT)
}
