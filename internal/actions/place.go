package actions

import (
	"bufio"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// jobs is below which the runner mounts what is one job's.
const jobs = "/github"

// Lasting returns "" if a file outlives the container that this process runs in, or
// if it runs in none; else it says where the file would be. Root is the root of
// the file system ([os.DirFS]("/")), file an absolute path without links in it.
func Lasting(root fs.FS, file string) (string, error) {
	if !inContainer(root) {
		return "", nil
	}
	if file = path.Clean(file); file == jobs || strings.HasPrefix(file, jobs+"/") {
		return "in a folder that the runner makes for one job", nil
	}
	mounts, err := root.Open("proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("looking what is mounted: %w", err)
	}
	defer mounts.Close()
	deepest, lasts := "/", false
	scan := bufio.NewScanner(mounts)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 5 {
			continue
		}
		at := unescape(fields[4])
		if at != "/" && (file == at || strings.HasPrefix(file, at+"/")) && len(at) >= len(deepest) {
			deepest, lasts = at, !volatile(fields)
		}
	}
	if err := scan.Err(); err != nil {
		return "", fmt.Errorf("looking what is mounted: %w", err)
	}
	if lasts {
		return "", nil
	}
	return "in the container, which is gone when it ends", nil
}

// inContainer looks for the marks that Docker and Podman leave.
func inContainer(root fs.FS) bool {
	for _, mark := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := fs.Stat(root, mark); err == nil {
			return true
		}
	}
	return false
}

// volatile reports whether a mount is gone with its container: see proc_pid_mountinfo(5). A
// part of a file system in memory is mounted from outside, where it lasts longer.
func volatile(fields []string) bool {
	for i, field := range fields {
		if field == "-" && i+1 < len(fields) {
			return fields[i+1] == "tmpfs" && fields[3] == "/" || fields[i+1] == "proc" || fields[i+1] == "sysfs"
		}
	}
	return false
}

// unescape undoes how the kernel writes blanks in paths.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
