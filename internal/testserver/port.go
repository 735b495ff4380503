package testserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Ports are taken below the range that Linux uses for outgoing connections
// (32768 on), so that a server that is stopped for a while finds its port free
// when it starts again, whatever the load has opened meanwhile.
const (
	lowestPort = 16000
	portCount  = 16000
)

// freePort returns a port that is free on every given host just now, and that no test gets
// again while this process lives: a server may be stopped for a while.
// The network is "tcp" or "udp".
func freePort(network string, hosts ...string) (int, error) {
	for range 200 {
		port := lowestPort + rand.IntN(portCount)
		if free(network, port, hosts) && claimed(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("finding a free %s port on %q: none of 200 tried", network, hosts)
}

// claims keeps the sockets of [claimed] from the garbage collector.
var claims sync.Map

// claimed takes a port for this process, for as long as it lives, unless it is taken: the
// sign that tests of every package see is a socket of that name, which is no file.
func claimed(port int) bool {
	l, err := net.Listen("unix", fmt.Sprintf("@keyturn-test-port-%d", port))
	if err != nil {
		return false
	}
	claims.Store(port, l)
	return true
}

// free reports whether nothing listens on the port of any of the hosts.
func free(network string, port int, hosts []string) bool {
	for _, host := range hosts {
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		if network == "udp" {
			conn, err := net.ListenPacket("udp", addr)
			if err != nil {
				return false
			}
			_ = conn.Close()
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// FreePort returns a TCP port of 127.0.0.1 that is free just now, for a service that a
// test starts itself.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freePort("tcp", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// DeadPort returns a TCP port of 127.0.0.1 that nothing listens on, and that nobody else gets
// before the test is over: a socket is bound to it, and connections are refused.
func DeadPort(t testing.TB) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*syscall.SockaddrInet4).Port
}
