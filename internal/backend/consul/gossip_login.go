package consul

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// How Serf speaks over TCP, see net.go and security.go of hashicorp/memberlist: a byte that
// says that the rest is encrypted, its length, and the rest: a version, a nonce, and what
// AES-GCM makes of a message, with what stands before it.
const (
	serfEncrypted = 10
	serfPing      = 0
	serfVersion   = 1
	serfLongest   = 64 << 10 // of an answer that is worth reading
)

// codeNoKey is the answer of an agent that has not the key.
const codeNoKey = "no-key"

// nobody is a name that no agent has.
const nobody = "keyturn probe"

// tryKey asks agents by their gossip whether they have the key, as one that would join.
//
// An agent that has the key reads a ping, and answers it, encrypted with its primary key, which
// may be another; a ping for somebody else it reads and drops. One that has not the key answers
// both alike: that it cannot decrypt them. So each is sent both. Where some have the key and
// some have not, those are Unfit: such a version is neither alive nor dead.
func tryKey(ctx context.Context, spec rotation.ProbeSpec, print string, m rotation.Material) rotation.ProbeResult {
	value, problem := only(m, fieldKey)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(value.Reveal())))
	result := rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		switch {
		case problem != "":
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		case err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32:
			return rotation.EndpointResult{Answer: rotation.Unfit, Code: codeOther, Reason: "what is mounted is no gossip key"}
		case fingerprintOf(key) != print:
			return rotation.EndpointResult{Answer: rotation.Unfit, Code: codeOther, Reason: "what is mounted is another key than the version's"}
		}
		return tryKeyAt(ctx, endpoint, key)
	})
	known := false
	for _, e := range result.Endpoints {
		known = known || e.Answer == rotation.Alive
	}
	for i, e := range result.Endpoints {
		if known && e.Answer == rotation.Dead {
			result.Endpoints[i].Answer, result.Endpoints[i].Reason = rotation.Unfit, "it has not the key, and another agent has"
		}
	}
	result.Reason = ""
	return result.Summarize()
}

// tryKeyAt asks one agent.
func tryKeyAt(ctx context.Context, endpoint string, key []byte) rotation.EndpointResult {
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	r := rotation.EndpointResult{Answer: rotation.Inconclusive}
	toAny, err := ping(ctx, endpoint, key, "")
	if err == nil {
		var toNobody bool
		if toNobody, err = ping(ctx, endpoint, key, nobody); err == nil {
			switch {
			case toAny && !toNobody:
				r.Answer = rotation.Alive
			case toAny && toNobody:
				r.Answer, r.Code, r.Reason = rotation.Dead, codeNoKey, "it has not the key"
			default:
				r.Reason = "it answers otherwise than Serf does"
			}
		}
	}
	if err != nil {
		r.Reason = remote.Cause(err)
	}
	return r
}

// ping sends a ping, and reports whether it was answered at all, or the connection closed.
func ping(ctx context.Context, endpoint string, key []byte, to string) (answered bool, err error) {
	message, err := sealed(key, pingFor(to))
	if err != nil {
		return false, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return false, err
		}
	}
	if _, err := conn.Write(message); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, serfLongest))
	switch {
	case len(answer) > 5 && answer[0] == serfEncrypted && int(binary.BigEndian.Uint32(answer[1:5])) == len(answer)-5:
		return true, nil
	case len(answer) > 0:
		return false, errors.New("it answers without encryption")
	case errors.Is(err, syscall.ECONNRESET):
		return false, errors.New("it cuts the connection")
	}
	return false, err
}

// pingFor returns a ping in MessagePack: {"SeqNo": 1, "Node": to}.
func pingFor(to string) []byte {
	out := []byte{serfPing, 0x82}
	out = append(out, 0xa5)
	out = append(out, "SeqNo"...)
	out = append(out, 1, 0xa4)
	out = append(out, "Node"...)
	return append(append(out, 0xa0|byte(len(to))), to...)
}

// sealed encrypts a message as Serf does.
func sealed(key, message []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errors.New("the key has no length of AES")
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcm.NonceSize())
	rand.Read(nonce)
	out := binary.BigEndian.AppendUint32([]byte{serfEncrypted}, uint32(1+len(nonce)+len(message)+gcm.Overhead())) //nolint:gosec // a few bytes
	head := out[:5:5]
	return gcm.Seal(append(append(out, serfVersion), nonce...), nonce, message, head), nil
}
