package postgres

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// keptTimeout is within what a kept connection must answer before it is used again.
const keptTimeout = 2 * time.Second

// kept holds the administrator's connections between the calls of one phase: while the
// lock is held, so that none outlives it. A login costs several round trips, and the
// server a process.
type kept struct {
	mu   sync.Mutex
	on   bool // the lock is held
	free *cluster
}

// begin has connections kept.
func (k *kept) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.on = true
}

// end closes them.
func (k *kept) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.on = false; k.free != nil {
		k.free.disconnect()
		k.free = nil
	}
}

// take returns connections of the account that are kept, and still what they were: every
// host answers, and one is the primary. Else it returns nil, and none is kept.
func (k *kept) take(ctx context.Context, b *Backend, as account) *cluster {
	k.mu.Lock()
	c := k.free
	k.free = nil
	k.mu.Unlock()
	if c == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keptTimeout)
	defer cancel()
	same := c.admin.user == as.user && bytes.Equal(c.admin.password.Reveal(), as.password.Reveal())
	for _, s := range c.servers {
		same = same && b.look(ctx, s) == nil && s.standby == (s != c.primary)
	}
	if !same {
		c.disconnect()
		return nil
	}
	return c
}

// give keeps connections, if they are kept at all and can be used again.
func (k *kept) give(c *cluster) (taken bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.on || k.free != nil || !c.reusable() {
		return false
	}
	k.free = c
	return true
}

// reusable reports whether every host is there, with its session as it was after the login.
func (c *cluster) reusable() bool {
	for _, s := range c.servers {
		if s.silenced || s.conn.IsClosed() || s.conn.PgConn().TxStatus() != 'I' {
			return false
		}
	}
	return len(c.lost) == 0
}

// close keeps the connections for the next call, or closes them.
func (c *cluster) close() {
	if !c.kept.give(c) {
		c.disconnect()
	}
}

func (c *cluster) disconnect() {
	for _, s := range c.servers {
		s.close()
	}
}
