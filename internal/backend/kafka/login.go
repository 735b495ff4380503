package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// codePower stands for a user that may do more than a service should.
const codePower = "power"

// probeSettings travel in [rotation.ProbeSpec.Settings].
type probeSettings struct {
	Mechanism   string   `json:"mechanism"`
	Topics      []string `json:"topics,omitempty"`
	InsecureTLS []string `json:"insecure_tls,omitempty"`
}

// Login logs in at every broker at once, as a service would, and looks at the topics of the
// spec. It produces nothing: a client that is refused would try for ever and say nothing.
//
// Only SASL_AUTHENTICATION_FAILED is Dead: Kafka says it of a wrong value, of a user that is
// unknown, and of one that has no credential for the mechanism. A topic that the version may not
// see makes it Unfit, and so does the right to alter the cluster. All else that is not success is Inconclusive, such as a mechanism
// that a listener does not take, or a connection that the broker closes.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var settings probeSettings
	if len(spec.Settings) > 0 {
		if err := json.Unmarshal(spec.Settings, &settings); err != nil {
			return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
		}
	}
	password, problem := passwordIn(spec.Identity, m)
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		if problem != "" {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		}
		r := try(ctx, line{user: spec.Identity, mechanism: settings.Mechanism, password: password, ca: spec.CA, weaker: settings.InsecureTLS}, endpoint, settings.Topics)
		if r.Reason != "" {
			r.Reason = endpoint + ": " + r.Reason
		}
		return r
	})
}

// jaas is how Kafka's own clients have a user and a password in one text.
var jaas = regexp.MustCompile(`ScramLoginModule\s+required\b[^;]*\busername\s*=\s*"([^"]*)"[^;]*\bpassword\s*=\s*"([^"]*)"`)

// passwordIn finds the password in the material: the field password, or else the one field
// that is there, which may be a line of JAAS.
func passwordIn(user string, m rotation.Material) (_ secret.Value, problem string) {
	if v, ok := m[fieldPassword]; ok {
		return v, ""
	}
	fields := m.Fields()
	if len(fields) != 1 {
		return secret.Value{}, "no field holds a password: mount password"
	}
	found := jaas.FindSubmatch(m[fields[0]].Reveal())
	switch {
	case found == nil:
		return m[fields[0]], ""
	case string(found[1]) != user:
		return secret.Value{}, "the line of JAAS that is mounted is another user's"
	}
	return secret.New(found[2]), ""
}

// try logs in at one broker.
func try(ctx context.Context, l line, endpoint string, topics []string) rotation.EndpointResult {
	r := rotation.EndpointResult{Answer: rotation.Inconclusive}
	client, err := l.connect(endpoint)
	if err != nil {
		r.Reason = "the endpoint or the authority cannot be read"
		return r
	}
	defer client.close()
	request := noTopics()
	for _, name := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		request.Topics = append(request.Topics, topic)
	}
	at := broker{endpoint, client, remote.CallTimeout}
	resp, err := ask[*kmsg.MetadataResponse](ctx, at, request)
	var may int32
	if err == nil {
		may, err = mayOn(ctx, at)
	}
	if err != nil {
		r.Reason = remote.Cause(err)
		if kind, ok := errors.AsType[*kerr.Error](err); ok {
			r.Code, r.Reason = kind.Message, kind.Description
		}
		if errors.Is(err, kerr.SaslAuthenticationFailed) {
			r.Answer = rotation.Dead
		}
		return r
	}
	r.Answer = rotation.Alive
	if may&(1<<kmsg.ACLOperationAlter) != 0 {
		r.Answer, r.Code, r.Reason = rotation.Unfit, codePower, "it may alter the cluster: it is a super user, which no ACL stops, or an administrator"
	}
	for _, t := range resp.Topics {
		name := ""
		if t.Topic != nil {
			name = *t.Topic
		}
		switch kind := kerr.TypedErrorForCode(t.ErrorCode); kind {
		case kerr.TopicAuthorizationFailed:
			r.Answer, r.Code, r.Reason = rotation.Unfit, kind.Message, fmt.Sprintf("it may not see the topic %q", name)
		case kerr.UnknownTopicOrPartition: // whoever may not see it is not told so
			r.Answer, r.Code, r.Reason = rotation.Inconclusive, kind.Message, fmt.Sprintf("it does not know the topic %q", name)
		}
	}
	return r
}
