package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
	"time"
)

// RelayArgs returns the arguments with which a relay's task starts the keyturn
// program, the entry point of its image. The command calls [HoldRelay]; with
// --anchor it calls [AnchorRelay], and with --to ADDRESS [RunRelay].
func RelayArgs() []string { return []string{"relay"} }

// relayFirst is how long a relay waits for its first connection.
const relayFirst = time.Minute

// relayDial is how long a connection may take to be made: less than the clients of
// backends wait, so that they get the reason.
const relayDial = 4 * time.Second

// HoldRelay is the first process of a relay's container. It ends when no other
// process has been there for a while: when whoever started it is gone. Proc is
// the file system of the processes of this container ([os.DirFS]("/proc")).
func HoldRelay(ctx context.Context, proc fs.FS) error {
	idle := time.NewTimer(relayFirst)
	defer idle.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done(): // it is stopped, as it shall be
			return nil
		case <-idle.C:
			return nil
		case <-tick.C:
		}
		n, err := processes(proc)
		if err != nil {
			return fmt.Errorf("looking who is in the relay: %w", err)
		}
		if n > 1 {
			idle.Reset(relayIdle)
		}
	}
}

// processes counts the processes that are there.
func processes(proc fs.FS) (int, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			n++
		}
	}
	return n, nil
}

// AnchorRelay keeps a relay until in ends, which it does when the process at its
// other side has ended, however that came, and then ends the relay. (The task of a
// job runs on when Engine 20.10 removes its service.)
func AnchorRelay(in io.Reader, out io.Writer, end func() error) error {
	if _, err := fmt.Fprintln(out, relayReady); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return errors.Join(err, end())
}

// RunRelay is the inside of one connection: it connects to the address, says on
// out whether it could, and copies in and out until either side ends.
func RunRelay(ctx context.Context, address string, in io.Reader, out io.Writer) error {
	conn, err := (&net.Dialer{Timeout: relayDial}).DialContext(ctx, "tcp", address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // its head is written again on the other side
		}
		_, err = fmt.Fprintln(out, err)
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(out, relayReady); err != nil {
		return err
	}
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in) // its end is that of who connected
		done <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	return err
}
