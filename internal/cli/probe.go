package cli

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/target/swarm"
)

// probeCommand is what a probe's task runs inside the Swarm: it needs no
// configuration, no journal and no administrator's right.
func (a *app) probeCommand() *cobra.Command {
	var spec, dir string
	cmd := &cobra.Command{
		Use: "probe", Short: "Try a mounted credential as a service would (runs inside the Swarm)", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if spec == "" || dir == "" {
				return usagef("keyturn starts probes by itself", "probe needs --spec and --dir")
			}
			if code := swarm.RunProbe(cmd.Context(), spec, dir, loginOf, a.Stdout); code != 0 {
				return exitStatus(code)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&spec, "spec", "", "`file` with the specification of the probe")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` with a file per field")
	return cmd
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
