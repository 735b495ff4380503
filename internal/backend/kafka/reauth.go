package kafka

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reauth is the key that says after how long a client must log in again (KIP-368).
const reauth = "connections.max.reauth.ms"

// lasting returns the brokers on which a connection of the services lasts for ever, by a mechanism of
// the slots, and the longest that one lasts elsewhere.
func (t *turn) lasting(ctx context.Context, c *cluster) (without []string, longest time.Duration, err error) {
	found, _, err := every(ctx, c, "reading its configuration", configOf)
	if err != nil {
		return nil, 0, err
	}
	for i, values := range found {
		address := c.brokers[i].address
		for _, listener := range t.listeners(values, address) {
			for _, s := range t.slots {
				lasts := reauthOf(values, listener, s.mechanism)
				longest = max(longest, lasts)
				if lasts == 0 && !slices.Contains(without, address) {
					without = append(without, address)
				}
			}
		}
	}
	return without, longest, nil
}

// listeners returns which listeners of a broker services connect to, by its configuration: those that
// are advertised as what is probed, or else those with the port at which it is asked; "" for none
// that can be told.
func (t *turn) listeners(values map[string]string, address string) (out []string) {
	_, port, _ := net.SplitHostPort(address)
	var near []string
	for text := range strings.SplitSeq(values["advertised.listeners"]+","+values["listeners"], ",") {
		name, at, _ := strings.Cut(strings.TrimSpace(text), "://")
		_, itsPort, _ := net.SplitHostPort(at)
		switch {
		case slices.Contains(t.settings.Probe, at) && !slices.Contains(out, name):
			out = append(out, name)
		case itsPort == port && !slices.Contains(near, name):
			near = append(near, name)
		}
	}
	switch {
	case len(out) > 0:
		return out
	case len(near) > 0:
		return near
	}
	return []string{""}
}

// reauthOf returns how long a connection lasts by a broker's configuration, 0 for ever: on a listener
// by a mechanism, or else on all.
func reauthOf(values map[string]string, listener, mechanism string) time.Duration {
	value := values[reauth]
	if own, ok := values[strings.ToLower("listener.name."+listener+"."+mechanism+"."+reauth)]; ok {
		value = own
	}
	ms, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// enables reports whether a listener takes a mechanism by a broker's configuration.
func enables(values map[string]string, listener, mechanism string) bool {
	const key = "sasl.enabled.mechanisms"
	value := values[key]
	if own, ok := values[strings.ToLower("listener.name."+listener+".")+key]; ok {
		value = own
	}
	return slices.ContainsFunc(strings.Split(value, ","), func(name string) bool { return strings.TrimSpace(name) == mechanism })
}

// span is a time for people.
func span(d time.Duration) string {
	text := d.String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, none) {
			text = strings.TrimSuffix(text, none[1:])
		}
	}
	return text
}
