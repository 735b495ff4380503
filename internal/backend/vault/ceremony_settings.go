package vault

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// Shares says who gets a share of a new key, and how many of them are needed.
type Shares struct {
	// Holders holds the paths of OpenPGP public keys, one for each share. Whoever stands there twice
	// gets two.
	Holders []string `yaml:"holders"`

	// Threshold is how many shares are needed.
	Threshold int `yaml:"threshold"`

	// Deliver is the folder into which the encrypted shares are written, a file for each. Empty: holders
	// fetch them from Vault.
	Deliver string `yaml:"deliver"`

	// Wait is how long a run waits for holders, as 15m. Default: 10 minutes.
	Wait string `yaml:"wait"`
}

// Barrier is the key with which Vault encrypts what it stores. It has nothing to say.
type Barrier struct{}

// Elsewhere says who has what no service reads; "" for what services read.
func (s Settings) Elsewhere() string {
	switch {
	case s.Seal != nil || s.Recovery != nil:
		return "people hold its shares"
	case s.Barrier != nil:
		return "Vault keeps it, and shows it to nobody"
	}
	return ""
}

// Held reports whether no service reads what is rotated.
func (s Settings) Held() bool { return s.Elsewhere() != "" }

// defaultWait is how long a run waits for holders.
const defaultWait = 10 * time.Minute

func (s Shares) wait() time.Duration {
	if d, err := time.ParseDuration(s.Wait); err == nil {
		return d
	}
	return defaultWait // it is empty, or a fault
}

func (s Shares) check(key string, fault vaultapi.FaultFunc) {
	switch n := len(s.Holders); {
	case n == 0:
		fault(key+".holders", "write the paths of their OpenPGP public keys: [keys/ann.asc, keys/bob.asc, keys/eve.asc]", "nobody gets a share")
	case n > 255:
		fault(key+".holders", "Vault makes 255 at most", "there are %d shares", n)
	case n == 1:
		fault(key+".holders", "name two holders or more", "one share alone is the key itself, and whether the old one is refused nobody could see")
	case s.Threshold < 2 || s.Threshold > n:
		fault(key+".threshold", fmt.Sprintf("write how many of the %d are needed", n), "the threshold is not 2 to %d", n)
	}
	for i, path := range s.Holders {
		if path == "" {
			fault(fmt.Sprintf("%s.holders.%d", key, i), "write the path of an OpenPGP public key", "the path is empty")
		}
	}
	if d, err := time.ParseDuration(s.Wait); s.Wait != "" && (err != nil || d < 0 || d > time.Hour) {
		fault(key+".wait", "write it as 15m; an hour at most, for a phase holds its lease meanwhile", "this is no time of an hour or less")
	}
}

// checkWhat sees to it that one thing is rotated.
func (s Settings) checkWhat(fault vaultapi.FaultFunc) {
	named := 0
	for _, is := range []bool{s.AppRole != nil, s.Seal != nil, s.Recovery != nil, s.Barrier != nil} {
		if is {
			named++
		}
	}
	switch {
	case named == 0:
		fault("", "write: vault: {approle: {role: orders}}; or seal, recovery or barrier", "nothing says what is rotated")
	case named > 1:
		fault("", "make it a credential of its own", "one of approle, seal, recovery and barrier is rotated, not several")
	}
	if s.AppRole != nil {
		vaultapi.CheckURLs("approle.probe", s.AppRole.Probe, s.InsecureTLS, fault)
		s.AppRole.check(fault)
	}
	if s.Seal != nil {
		s.Seal.check("seal", fault)
	}
	if s.Recovery != nil {
		s.Recovery.check("recovery", fault)
	}
}
