package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
)

// shells are those that the completion speaks.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print the completion of a shell",
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			const hint = "write bash, zsh, fish or powershell"
			if len(args) != 1 {
				return usagef(hint, "completion needs the name of one shell")
			}
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Stdout)
			}
			return usagef(hint, "unknown shell %q", args[0])
		},
	}
}

// completeCredentials lets the commands that take credentials complete their
// names. A configuration with faults completes nothing, and says nothing.
func (a *app) completeCredentials(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		a.completeCredentials(cmd.Commands()...)
		if !strings.Contains(cmd.Use, "CREDENTIAL…") {
			continue
		}
		cmd.ValidArgsFunction = func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			cfg, err := config.Read(a.configPath, sections())
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range cfg.Credentials {
				if !slices.Contains(given, c.Name) {
					names = append(names, c.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
}
