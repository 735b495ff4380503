package cli

import (
	"regexp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is the release, if it was set at link time; otherwise it is what the
// go command knows of the module.
var Version string

// devel is the version of a build that nobody released.
const devel = "devel"

// released matches the versions of releases (v1.2.3, v1.2.3-rc.1), and nothing
// that stands for a commit between two or for changes that are not committed.
var released = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[a-z]+\.\d+)?$`)

// version returns the version of this build.
func version() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return devel
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return devel + " " + s.Value[:12]
		}
	}
	return devel
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.output == "json" {
				a.json(map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
				return nil
			}
			a.printf("keyturn %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
