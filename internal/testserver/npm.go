package testserver

import (
	"context"
	"os"
	"path/filepath"
)

// FetchNPM returns a folder with the packages that a folder of this repository
// names, such as "tools/postgres": fetched by npm as its lock file has them, once,
// into the user's cache. Nothing that a package would run is run. Then, if given,
// is done to a fresh folder before it is used.
func FetchNPM(ctx context.Context, folder, cache string, then func(fresh string) error) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile(filepath.Join(root, folder, "package-lock.json"))
	if err != nil {
		return "", err
	}
	return fetchOnce(cache, lock, func(fresh string) error {
		npm, err := installed("npm")
		if err != nil {
			return err
		}
		for _, file := range []string{"package.json", "package-lock.json"} {
			if err := copyProgram(filepath.Join(root, folder, file), filepath.Join(fresh, file)); err != nil {
				return err
			}
		}
		if err := run(ctx, fresh, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil || then == nil {
			return err
		}
		return then(fresh)
	})
}
