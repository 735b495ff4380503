package directory_test

import (
	"fmt"
	"io/fs"
	"syscall"
)

// owner returns "uid:gid" of a file.
func owner(fi fs.FileInfo) string {
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}
