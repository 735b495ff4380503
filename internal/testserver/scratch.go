package testserver

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// serversIn is the variable that holds the folder of the servers' folders when
// TMPDIR has been changed by [Scratch].
const serversIn = "KEYTURN_TEST_SERVERS_IN"

// Scratch makes a folder for everything that this process and its children put
// aside, and lets TMPDIR name it: what t.TempDir makes, the go command, and
// whatever else. Remove takes it away; should this process be killed, its guard
// does. The folders of servers lie beside it, each with a guard of its own.
func Scratch() (remove func() error, err error) {
	base := tempBase()
	dir, err := os.MkdirTemp(base, "keyturn-tmp-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for temporary files: %w", err)
	}
	g, err := startGuard("folder", dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Others may pass, since servers run as other users; what lies in it is
	// protected by itself.
	if err := errors.Join(os.Chmod(dir, 0o711), os.Setenv(serversIn, base), os.Setenv("TMPDIR", dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("making a folder for temporary files: %w", err), g.close())
	}
	return g.close, nil
}

// tempBase is where folders of servers are made. Unix sockets below them must
// have short paths (107 bytes), so a long TMPDIR is not used; nor is one inside of
// the folders that an engine replaces by its own.
func tempBase() string {
	base := os.Getenv(serversIn)
	if base == "" {
		base = os.TempDir()
	}
	for _, parent := range privateFolders {
		if strings.HasPrefix(base+"/", parent+"/") {
			return "/tmp"
		}
	}
	if len(base) > 40 {
		return "/tmp"
	}
	return base
}

// tempDir makes a folder for one server.
func tempDir(name string) (string, error) {
	dir, err := os.MkdirTemp(tempBase(), "keyturn-"+name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}
