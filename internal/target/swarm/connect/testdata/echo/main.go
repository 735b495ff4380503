// Echo gives back what it reads, and says when that has ended. With an argument
// it waits for ever.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		select {}
	}
	n, err := io.Copy(os.Stdout, os.Stdin)
	fmt.Printf("\n%d bytes, then %v\n", n, err)
}
