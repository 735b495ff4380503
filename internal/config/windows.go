package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Window is a part of the week, in UTC, in which a cutover may begin.
type Window struct {
	Text     string        // as it is written
	Days     map[int]bool  // by [time.Weekday]
	From, To time.Duration // since the beginning of the day; To is after From, and 24 h at most
}

var (
	windowForm = regexp.MustCompile(`^(daily|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:-(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun))?) ([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])$`)
	weekdays   = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
)

const windowHint = "write Mon-Fri 08:00-16:00, Sat 22:00-24:00 or daily 02:00-04:00; the times are UTC, and one over midnight is two"

// window reads a window; its faults are told by a hint.
func window(text string) (Window, bool) {
	m := windowForm.FindStringSubmatch(text)
	if m == nil {
		return Window{}, false
	}
	w := Window{Text: text, Days: map[int]bool{}}
	first, last := 0, 6
	if m[1] != "daily" {
		from, to, several := strings.Cut(m[1], "-")
		first = slices.Index(weekdays, from)
		if last = first; several {
			last = slices.Index(weekdays, to)
		}
	}
	for day := first; ; day = (day + 1) % 7 {
		w.Days[day] = true
		if day == last {
			break
		}
	}
	clock := func(h, m string) time.Duration {
		hours, _ := strconv.Atoi(h)
		minutes, _ := strconv.Atoi(m)
		return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	}
	w.From, w.To = clock(m[2], m[3]), clock(m[4], m[5])
	return w, w.From < w.To && w.To <= day
}

// Open reports whether a time is inside the window.
func (w Window) Open(t time.Time) bool {
	t = t.UTC()
	at := t.Sub(t.Truncate(day))
	return w.Days[int(t.Weekday())] && at >= w.From && at < w.To
}

// Next is when the window opens: now, if it is open.
func (w Window) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	begin := t.UTC().Truncate(day)
	for i := range 9 {
		at := begin.Add(time.Duration(i)*day + w.From)
		if w.Days[int(at.Weekday())] && at.After(t) {
			return at
		}
	}
	return time.Time{} // no window is without days
}

// Opens is when one of the windows is open next: now, if one is, or if there is none.
func Opens(windows []Window, t time.Time) time.Time {
	next := t
	for i, w := range windows {
		if at := w.Next(t); i == 0 || at.Before(next) {
			next = at
		}
	}
	return next
}

// windows reads the windows of a credential.
func (p *parser) windows(c *Credential, texts []string, n *yaml.Node, key string) {
	for i, text := range texts {
		w, ok := window(text)
		if !ok {
			p.fault(item(n, "windows", i), fmt.Sprintf("%s.windows", key), windowHint, "this is no window")
			continue
		}
		c.Windows = append(c.Windows, w)
	}
}
