package kafka

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

const (
	sha256Name = "SCRAM-SHA-256"
	sha512Name = "SCRAM-SHA-512"
)

// mechanisms by their names; the values are those of KIP-554.
var mechanisms = map[string]int8{sha256Name: 1, sha512Name: 2}

func nameOf(mechanism int8) string {
	for name, m := range mechanisms {
		if m == mechanism {
			return name
		}
	}
	return fmt.Sprintf("mechanism %d", mechanism)
}

// Kafka tells of a credential nothing but its mechanism and iterations, of which it takes 4096
// to 16384. So the iterations say whose a credential is: they change with it, at one stroke.
// One of version 7 has 8192 + 7, and one that ended it, whose value nobody has, 12288 + 7.
const (
	aliveMark  = 8192
	endedMark  = 12288
	mostNumber = 4095
)

// parseMark returns the version that a credential is of, 0 if the iterations do not say.
func parseMark(iterations int32) (number int, ended bool) {
	switch {
	case iterations > endedMark && iterations <= endedMark+mostNumber:
		return int(iterations - endedMark), true
	case iterations > aliveMark && iterations <= aliveMark+mostNumber:
		return int(iterations - aliveMark), false
	}
	return 0, false
}

// held is a principal's credentials: the iterations of each mechanism.
type held map[int8]int32

// publicIterations is the public field that says how many iterations an adopted credential has.
const publicIterations = "iterations"

// of reports whether a credential is a version's, and works for whoever has its value.
func of(iterations int32, v rotation.Version) bool {
	if adopted := v.Public[publicIterations]; adopted != "" {
		return adopted == fmt.Sprint(iterations)
	}
	number, ended := parseMark(iterations)
	return number == v.Number && !ended
}

// standing says where a version stands by the credentials of its principal.
func (h held) standing(v rotation.Version, mechanism int8) rotation.Status {
	iterations, there := h[mechanism]
	switch number, ended := parseMark(iterations); {
	case there && of(iterations, v):
		return rotation.Armed
	case !ended || number != v.Number:
		return rotation.Absent // there is none, or it is another version's
	}
	if v.Public[publicIterations] != "" && h.alive() != "" {
		return rotation.Armed // an adopted one may have another mechanism too
	}
	return rotation.Ended
}

// alive says which credential somebody may have the value of, or "".
func (h held) alive() string {
	for _, mechanism := range slices.Sorted(maps.Keys(h)) {
		switch number, ended := parseMark(h[mechanism]); {
		case ended:
		case number > 0:
			return fmt.Sprintf("%s of version %d", nameOf(mechanism), number)
		default:
			return fmt.Sprintf("%s with %d iterations, which Keyturn did not make", nameOf(mechanism), h[mechanism])
		}
	}
	return ""
}

func (h held) String() string {
	var parts []string
	for _, mechanism := range slices.Sorted(maps.Keys(h)) {
		text := fmt.Sprintf("%s with %d iterations", nameOf(mechanism), h[mechanism])
		if number, ended := parseMark(h[mechanism]); ended {
			text = fmt.Sprintf("%s that nobody has the value of, since version %d", nameOf(mechanism), number)
		} else if number > 0 {
			text = fmt.Sprintf("%s of version %d", nameOf(mechanism), number)
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "no credential"
	}
	return strings.Join(parts, ", ")
}

// credentials returns what one broker knows of a principal.
func credentials(principal string) func(context.Context, broker) (held, error) {
	return func(ctx context.Context, b broker) (held, error) {
		request := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		request.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: principal}}
		resp, err := ask[*kmsg.DescribeUserSCRAMCredentialsResponse](ctx, b, request)
		if err != nil {
			return nil, err
		}
		if err := refusalOf(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return nil, err
		}
		h := held{}
		for _, r := range resp.Results {
			if err := refusalOf(r.ErrorCode, r.ErrorMessage); err != nil && !errors.Is(err, kerr.ResourceNotFound) {
				return nil, err
			}
			for _, c := range r.CredentialInfos {
				h[c.Mechanism] = c.Iterations
			}
		}
		return h, nil
	}
}

// set gives a principal a value, whatever it had: what travels is salted here.
func (c *cluster) set(ctx context.Context, principal string, mechanism int8, iterations int32, value secret.Value) error {
	salt := make([]byte, 24)
	rand.Read(salt)
	salted, err := salted(mechanism, value, salt, int(iterations))
	if err != nil {
		return fmt.Errorf("kafka: salting a value: %w", err)
	}
	defer clear(salted)
	return c.change(ctx, fmt.Sprintf("giving %q a value of %s", principal, nameOf(mechanism)), func(ctx context.Context, b broker) error {
		request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		request.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: principal, Mechanism: mechanism, Iterations: iterations, Salt: salt, SaltedPassword: salted}}
		resp, err := ask[*kmsg.AlterUserSCRAMCredentialsResponse](ctx, b, request)
		if err != nil {
			return err
		}
		return refusalIn(resp.Results, func(r kmsg.AlterUserSCRAMCredentialsResponseResult) (int16, *string) {
			return r.ErrorCode, r.ErrorMessage
		})
	})
}

// salted is the SaltedPassword of RFC 5802. Values are plain ASCII, which SASLprep leaves as it is.
func salted(mechanism int8, value secret.Value, salt []byte, iterations int) ([]byte, error) {
	if mechanism == mechanisms[sha256Name] {
		return pbkdf2.Key(sha256.New, string(value.Reveal()), salt, iterations, sha256.Size)
	}
	return pbkdf2.Key(sha512.New, string(value.Reveal()), salt, iterations, sha512.Size)
}
