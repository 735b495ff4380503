package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := config.Schema(sections())
			if err != nil {
				return fmt.Errorf("making the schema: %w", err)
			}
			a.printf("%s", b)
			return nil
		},
	}
}
