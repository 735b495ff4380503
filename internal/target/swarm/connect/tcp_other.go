//go:build !linux

package connect

import (
	"net"
	"time"
)

func acknowledge(net.Conn) {}

func impatient(net.Conn, time.Duration) {}
