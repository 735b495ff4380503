package directory

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Probe reads the version's files as applications do (without one trailing
// newline), runs the backend's login with them in this process, and wipes what
// it read. If the placement names a user that cannot read the files, or a
// field is missing, the answer is Inconclusive.
func (t *Target) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) rotation.ProbeResult {
	result := rotation.ProbeResult{Answer: rotation.Inconclusive, From: "this machine, " + t.Root}
	var login rotation.Login
	if t.Logins != nil {
		login = t.Logins(spec.Backend)
	}
	if login == nil {
		result.Reason = fmt.Sprintf("no login of backend %q is known here", spec.Backend)
		return result
	}
	m, err := t.read(v, from)
	if err != nil {
		result.Reason = about("reading", v, err).Error()
		return result
	}
	defer m.Wipe()
	answer := login(ctx, spec, m)
	answer.From = result.From
	return answer
}

// read returns the fields of a version, as the reader of a placement has them.
func (t *Target) read(v rotation.Version, from rotation.Placement) (_ rotation.Material, err error) {
	p, err := placeOf(v)
	if err != nil {
		return nil, err
	}
	h, err := t.open(v.Credential, false)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if err := t.whole(h, v); err != nil {
		return nil, err
	}
	fields, err := h.present(p)
	if err != nil {
		return nil, err
	}
	dir, err := h.openPlace(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	m := rotation.Material{}
	for _, f := range fields {
		value, err := readable(dir, f, from)
		if err != nil {
			m.Wipe()
			return nil, fmt.Errorf("field %q: %w", f, err)
		}
		m[f] = value
	}
	return m, nil
}

// readable reads a field without its last newline, if the user of the
// placement could read it too.
func readable(dir *os.Root, field string, from rotation.Placement) (secret.Value, error) {
	fi, err := regular(dir, field)
	if err != nil {
		return secret.Value{}, err
	}
	if !mayRead(fi, from) {
		uid, gid := ownerOf(fi)
		return secret.Value{}, fmt.Errorf("user %s of %q cannot read the file: it belongs to %d:%d with mode %04o",
			*from.UID, service(from), uid, gid, fi.Mode().Perm())
	}
	value, err := readField(dir, field)
	if err != nil {
		return secret.Value{}, err
	}
	defer value.Wipe()
	return secret.New(secret.TrimNewline(value.Reveal())), nil
}

// mayRead reports whether the mode of a file lets the user of a placement read
// it. Groups that the placement does not name are taken for the right ones.
func mayRead(fi fs.FileInfo, from rotation.Placement) bool {
	if from.UID == nil || *from.UID == "0" {
		return true
	}
	uid, gid := ownerOf(fi)
	mode := fi.Mode()
	if *from.UID == strconv.Itoa(uid) {
		return mode&0o400 != 0
	}
	if from.GID == nil || *from.GID == strconv.Itoa(gid) {
		return mode&0o044 != 0
	}
	return mode&0o004 != 0
}
