// Servers builds the servers and tools of the tests that come as source, into the user's
// cache, so that no test has to wait for that. What is there already is not built again.
package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// tools are by module, and package of its main.
var tools = [][2]string{
	{"tools/act", "github.com/nektos/act"},
	{"tools/consul", "github.com/hashicorp/consul"},
}

func main() {
	for _, t := range tools {
		begun := time.Now()
		if _, err := testserver.BuildTool(context.Background(), t[0], t[1]); err != nil {
			fmt.Fprintln(os.Stderr, "servers:", err)
			os.Exit(1)
		}
		if took := time.Since(begun); took > time.Second {
			fmt.Printf("servers: built %s in %s\n", path.Base(t[1]), took.Round(time.Second))
		}
	}
}
