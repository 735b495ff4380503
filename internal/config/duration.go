package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	longest = 3650 * day // sums of a few of these are far from an overflow
)

var units = []struct {
	length time.Duration
	name   string
}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}}

var (
	durationForm = regexp.MustCompile(`^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$`)
	otherForms   = []struct {
		form *regexp.Regexp
		msg  string
	}{
		{regexp.MustCompile(`^\d+ *w(eeks?)?$`), "a duration has no weeks"},
		{regexp.MustCompile(`^\d+ *(mo|months?|M|y|years?)$`), "a duration has no months and no years: they differ in length"},
		{regexp.MustCompile(`^-`), "a duration is not negative"},
		{regexp.MustCompile(`^\d+$`), "a duration needs a unit"},
		{regexp.MustCompile(`^\d*\.\d+[a-z]*$`), "a duration has whole numbers"},
		{regexp.MustCompile(`^(\d+(d|h|ms|m|s))+$`), "the units of a duration stand once each, the longest first"},
	}
)

// ParseDuration reads a duration such as "90d", "1d12h", "30m" or "500ms", at
// most ten years of 365 days. A day is 24 hours, whatever the calendar says.
// The error does not repeat the text.
func ParseDuration(s string) (time.Duration, error) {
	parts := durationForm.FindStringSubmatch(s)
	if s == "" || parts == nil {
		for _, other := range otherForms {
			if other.form.MatchString(s) {
				return 0, errors.New(other.msg)
			}
		}
		return 0, errors.New("not a duration")
	}
	var total time.Duration
	for i, unit := range units {
		if parts[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(parts[i+1], 10, 64)
		if err != nil || n > int64(longest/unit.length) || total+time.Duration(n)*unit.length > longest {
			return 0, fmt.Errorf("a duration is at most %s", FormatDuration(longest))
		}
		total += time.Duration(n) * unit.length
	}
	return total, nil
}

// FormatDuration writes a duration so that [ParseDuration] reads it. What is
// negative or has parts of a millisecond, which no configuration has, is
// written as Go does.
func FormatDuration(d time.Duration) string {
	if d < 0 || d%time.Millisecond != 0 {
		return d.String()
	}
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range units {
		if n := d / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.length
		}
	}
	return b.String()
}
