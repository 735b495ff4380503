package cli

import "fmt"

// configFull prints the configuration with every default written out.
func (a *app) configFull(names []string, f phaseFlags) error {
	if len(names) > 0 || f.due {
		return usagef("leave out the credentials and --due", "--config-full prints the whole configuration")
	}
	if a.output == "json" {
		return usagef("leave out --output json", "--config-full prints YAML, as the configuration is written")
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	b, err := cfg.Full()
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	a.printf("%s", b)
	return nil
}
