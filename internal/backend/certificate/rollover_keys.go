package certificate

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A keyFolder is where a directory target keeps an account's keys: a folder for each version,
// and beside them the link `current`. To change an account's key needs two of them.
type keyFolder string

// current is the link to the version in service.
const current = "current"

// keysBeside returns the folder of an account's key that is read by the link, or "".
func keysBeside(account secret.Source) keyFolder {
	folder, ok := account.Beside(fieldKey)
	if !ok {
		return ""
	}
	return keyFolder(folder)
}

// keysBesideLink is keysBeside also of a key that is read by a symlink to such a path.
func keysBesideLink(account secret.Source) keyFolder {
	for range 8 { // of a circle there is no end
		if folder := keysBeside(account); folder != "" {
			return folder
		}
		to, err := os.Readlink(account.File)
		if err != nil {
			return ""
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(account.File), to)
		}
		account.File = to
	}
	return ""
}

// A keptKey is one of a folder.
type keptKey struct {
	name string // of the version's folder
	crypto.Signer
}

// is reports whether two keys have the same public half.
func (k keptKey) is(other crypto.Signer) bool {
	own, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(other.Public())
}

// nameOf is the name of the folder of a version.
func nameOf(v rotation.Version) string {
	if o, ok := v.Objects[fieldKey]; ok {
		return path.Base(path.Dir(o.Name))
	}
	return fmt.Sprintf("v%d", v.Number)
}

// of reads the key of a version. The error is [fs.ErrNotExist] if there is none.
func (f keyFolder) of(v rotation.Version) (keptKey, error) {
	key, err := f.read(nameOf(v))
	if err != nil {
		return key, fmt.Errorf("certificate: the key of version %d: %w", v.Number, err)
	}
	hash, err := hashOfKey(key.Public())
	if want := v.Public[publicKey]; err == nil && want != "" && hash != want {
		err = rotation.Errorf(rotation.Failed, "somebody wrote to the folder: put back what stood there", "certificate: the key in %s is not the one on the record of version %d", filepath.Join(string(f), key.name), v.Number)
	}
	return key, err
}

func (f keyFolder) read(name string) (keptKey, error) {
	file, err := os.OpenInRoot(string(f), filepath.Join(name, fieldKey))
	if err != nil {
		return keptKey{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 1<<16))
	defer clear(text)
	if err != nil {
		return keptKey{}, err
	}
	key, err := parseKey(text)
	if err != nil {
		err = rotation.Classify(rotation.Invalid, "put the account's key there, in PEM form", fmt.Errorf("%s: %w", file.Name(), err))
	}
	return keptKey{name, key}, err
}

// inService is the name of the folder that the link leads to, or "".
func (f keyFolder) inService() string {
	to, err := os.Readlink(filepath.Join(string(f), current))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// plain reports whether a key stands beside the folders, and no link leads to any.
func (f keyFolder) plain() bool {
	_, err := os.Lstat(filepath.Join(string(f), fieldKey))
	return err == nil && f.inService() == ""
}

// all reads every key: first the one in service, then the newest. Where the folder may not be that of
// a credential of ours, what cannot be read and is not called as versions are is passed over.
func (f keyFolder) all(ours bool) ([]keptKey, error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrPermission) && !ours {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("certificate: looking for the keys of the account: %w", err)
	}
	var out []keptKey
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		key, err := f.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) || err != nil && !ours && numberOf(e.Name()) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("certificate: looking for the keys of the account: %w", err)
		}
		out = append(out, key)
	}
	first := f.inService()
	rank := func(k keptKey) int {
		if k.name == first {
			return math.MaxInt
		}
		return numberOf(k.name)
	}
	slices.SortFunc(out, func(a, b keptKey) int { return cmp.Compare(rank(b), rank(a)) })
	return out, nil
}

// numberOf is the number of the version of a folder; 0 for one that was adopted.
func numberOf(name string) int {
	digits, _ := strings.CutPrefix(name, "v")
	number, err := strconv.Atoi(digits)
	if err != nil || name == digits {
		return 0
	}
	return number
}
