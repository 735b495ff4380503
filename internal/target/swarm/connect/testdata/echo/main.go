// Echo gives back what it reads, and says when that has ended. With an argument
// it only waits.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		time.Sleep(time.Hour)
	}
	n, err := io.Copy(os.Stdout, os.Stdin)
	fmt.Printf("\n%d bytes, then %v\n", n, err)
}
