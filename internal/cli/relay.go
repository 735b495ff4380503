package cli

import (
	"context"
	"net"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// relayCommand is what a relay's task runs inside the Swarm, and each connection in
// it. It needs no configuration, and holds no secret.
func (a *app) relayCommand() *cobra.Command {
	var to string
	var anchor bool
	cmd := &cobra.Command{
		Use: "relay", Short: "Connect from the services' networks for keyturn elsewhere (runs inside the Swarm)", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case to != "":
				return swarm.RunRelay(cmd.Context(), to, os.Stdin, a.Stdout)
			case anchor:
				return swarm.AnchorRelay(os.Stdin, a.Stdout, endFirst)
			case os.Getpid() != 1:
				return usagef("keyturn starts relays by itself: through: swarm", "relay is the first process of a container")
			}
			return swarm.HoldRelay(cmd.Context(), os.DirFS("/proc"))
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`HOST:PORT` to connect to")
	cmd.Flags().BoolVar(&anchor, "anchor", false, "keep the relay until the standard input ends")
	return cmd
}

// endFirst ends the first process of the container, if it is this program.
func endFirst() error {
	ours, err := os.Executable()
	if err != nil {
		return err
	}
	if first, err := os.Readlink("/proc/1/exe"); err != nil || first != ours {
		return err
	}
	return syscall.Kill(1, syscall.SIGTERM)
}

// dialer makes connections to a backend.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// reach returns how the backend of a credential is reached.
func (w *wiring) reach(c config.Credential, f phaseFlags) reached {
	how := reached{credential: c.Name, overlap: c.Overlap, emergency: f.emergency, revoking: f.revoking != ""}
	if c.Through == "swarm" { // the relays are made when the target is there
		how.ready = func(ctx context.Context) error { return w.relays[c.Name].Start(ctx) }
		how.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return w.relays[c.Name].Dial(ctx, network, address)
		}
	}
	return how
}

// wireRelays makes the relays, which start nothing before they are used.
func (w *wiring) wireRelays(t *swarm.Target) {
	w.relays = map[string]*swarm.Relay{}
	for _, c := range w.cfg.Credentials {
		if c.Through == "swarm" {
			r := t.Relay(c.Name)
			w.relays[c.Name] = r
			w.closers = append(w.closers, r.Close)
		}
	}
}
