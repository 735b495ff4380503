package connect

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// acknowledge lets what has come be acknowledged at once. For forwarded
// connections OpenSSH's server leaves Nagle's algorithm on: it holds a small packet
// back until the one before it is acknowledged, and the kernel takes 40 ms for that
// where nothing goes the other way. The option holds for a moment alone.
func acknowledge(conn net.Conn) {
	set(conn, unix.TCP_QUICKACK, 1)
}

// impatient bounds how long what was sent may stay without an acknowledgement.
// Keepalive does not: it asks only where nothing is on its way.
func impatient(conn net.Conn, limit time.Duration) {
	set(conn, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
}

// set sets an option of TCP. Without it a connection is only slower to answer, or to
// be given up.
func set(conn net.Conn, option, value int) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value) })
}
