package connect

import (
	"net"

	"golang.org/x/sys/unix"
)

// acknowledge lets what has come be acknowledged at once. For forwarded
// connections OpenSSH's server leaves Nagle's algorithm on: it holds a small packet
// back until the one before it is acknowledged, and the kernel takes 40 ms for that
// where nothing goes the other way. The option holds for a moment alone.
func acknowledge(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }) // it is only slower without
}
