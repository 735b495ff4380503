package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

const (
	// healthAge is how old the last note of a good login may be.
	healthAge = 8 * time.Second
	// healthEvery bounds how often a good login is noted.
	healthEvery = 200 * time.Millisecond
	// enough failed logins in a row are bad health at once.
	enough = 5
)

// A health keeps a file while logins work: tasks may share the machine's
// network, so a port would collide.
type health struct {
	file          string
	unhealthyUser string
	failed        int
	noted         time.Time
}

// note takes one outcome into account.
func (h *health) note(o outcome.Login) error {
	if !o.OK || o.Session == h.unhealthyUser {
		h.failed++
		if h.failed == enough {
			h.noted = time.Time{}
			if err := os.Remove(h.file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("noting bad health: %w", err)
			}
		}
		return nil
	}
	h.failed = 0
	if time.Since(h.noted) < healthEvery {
		return nil
	}
	h.noted = time.Now()
	if err := os.WriteFile(h.file, []byte(h.noted.UTC().Format(time.RFC3339Nano)+"\n"), 0o600); err != nil {
		return fmt.Errorf("noting good health: %w", err)
	}
	return nil
}

// checkHealth is the HEALTHCHECK.
func checkHealth(c config) error {
	info, err := os.Stat(c.healthFile)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("unhealthy: logins fail, or none was tried yet")
	}
	if err != nil {
		return fmt.Errorf("unhealthy: %w", err)
	}
	if age := time.Since(info.ModTime()); age > healthAge {
		return fmt.Errorf("unhealthy: the last good login was %s ago", age.Round(time.Millisecond))
	}
	return nil
}
