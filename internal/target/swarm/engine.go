package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/rotation"
)

// errStale says that an object was changed since it was read.
var errStale = errors.New("changed by somebody else meanwhile")

// engine is the API of a Swarm manager, with errors that have a class.
type engine struct{ *client.Client }

// A service is a service as the engine knows it: decoded, and the very bytes.
type service struct {
	swarm.Service
	raw json.RawMessage // of Spec
}

// job reports whether the service runs to an end, so that every update of it is a run.
func (s service) job() bool { return s.Spec.Mode.ReplicatedJob != nil || s.Spec.Mode.GlobalJob != nil }

// service reads one service by its name or id.
func (e engine) service(ctx context.Context, name string) (service, error) {
	var s service
	typed, raw, err := e.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	if errdefs.IsNotFound(err) {
		return s, rotation.Errorf(rotation.Invalid, "the full name is needed: <stack>_<service>, as docker service ls shows it",
			"there is no service %q in the Swarm", name)
	}
	if err != nil {
		return s, fault(fmt.Errorf("reading service %q: %w", name, err))
	}
	var bytes struct{ Spec json.RawMessage }
	if err := json.Unmarshal(raw, &bytes); err != nil {
		return s, fmt.Errorf("reading service %q: %w", name, err)
	}
	return service{typed, bytes.Spec}, nil
}

// update replaces the spec of a service, if it is still the one that was read.
// It does not go through the client, which would drop every field that it does
// not know and complete the name of the image. The lease is read before.
func (e engine) update(ctx context.Context, s service, spec json.RawMessage) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	err := e.postUpdate(ctx, s, spec)
	if err != nil {
		return fmt.Errorf("updating service %q: %w", s.Spec.Name, err)
	}
	return nil
}

func (e engine) postUpdate(ctx context.Context, s service, spec json.RawMessage) error {
	// The version of the API is agreed: the service was read before.
	base, err := e.baseURL()
	if err != nil {
		return err
	}
	target := fmt.Sprintf("%s/v%s/services/%s/update?version=%s", base, e.ClientVersion(), url.PathEscape(s.ID),
		strconv.FormatUint(s.Version.Index, 10))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(spec))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.HTTPClient().Do(req)
	if err != nil {
		return unreached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return rotation.Classify(rotation.Unknown, "", err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var answer struct{ Message string }
	if json.Unmarshal(body, &answer) != nil || answer.Message == "" {
		answer.Message = resp.Status
	}
	return refusal(resp.StatusCode, answer.Message)
}

// refusal makes an error of an answer of the engine.
func refusal(status int, message string) error {
	err := errors.New(message)
	switch {
	case strings.Contains(message, "update out of sequence"): // HTTP 500, and gRPC knows no better either
		return errStale
	case status >= 500:
		return fault(rotation.Classify(rotation.Unknown, "", err))
	}
	return err
}

// baseURL returns what comes before the path of a request.
func (e engine) baseURL() (string, error) {
	u, err := client.ParseHostURL(e.DaemonHost())
	if err != nil {
		return "", err
	}
	switch u.Scheme {
	case "unix", "npipe":
		return "http://" + client.DummyHost, nil
	case "https":
		return "https://" + u.Host + u.Path, nil
	}
	return "http://" + u.Host + u.Path, nil
}

// fault gives an error of the client its class: what keeps the engine from
// answering is no answer.
func fault(err error) error {
	var classed *rotation.Error
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "not a swarm manager"):
		return rotation.Classify(rotation.Invalid, "point swarm.host at a manager of the Swarm, or run: docker swarm init", err)
	case errors.As(err, &classed) && client.IsErrConnectionFailed(err):
		// The way to the engine knows best; the client's words say less than its own.
		before, _, _ := strings.Cut(err.Error(), "error during connect: ")
		return rotation.Errorf(classed.Class, classed.Hint, "%s%w", before, classed)
	case errors.As(err, &classed):
		return err
	case strings.Contains(err.Error(), "update out of sequence"):
		return fmt.Errorf("%w (%w)", errStale, err)
	case client.IsErrConnectionFailed(err), strings.Contains(err.Error(), "does not have a leader"):
		return rotation.Classify(rotation.Unknown, "is the engine running, and may this user open its socket?", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errdefs.IsUnavailable(err), errdefs.IsInternal(err), errdefs.IsUnknown(err):
		return rotation.Classify(rotation.Unknown, "", err)
	}
	return err
}

// unreached is the error of a request of our own that got no answer.
func unreached(err error) error {
	var classed *rotation.Error
	if errors.As(err, &classed) {
		return classed
	}
	return rotation.Classify(rotation.Unknown, "is the engine running?", err)
}

// tasks returns the tasks of the given services; of all, if none is given.
func (e engine) tasks(ctx context.Context, services ...string) ([]swarm.Task, error) {
	f := filters.NewArgs()
	for _, s := range services {
		f.Add("service", s)
	}
	tasks, err := e.TaskList(ctx, swarm.TaskListOptions{Filters: f})
	if err != nil {
		return nil, fault(fmt.Errorf("listing tasks: %w", err))
	}
	return tasks, nil
}

// services returns every service.
func (e engine) services(ctx context.Context) ([]swarm.Service, error) {
	list, err := e.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return nil, fault(fmt.Errorf("listing services: %w", err))
	}
	return list, nil
}

// secrets returns every secret; values are never part of what the engine sends.
func (e engine) secrets(ctx context.Context) ([]swarm.Secret, error) {
	list, err := e.SecretList(ctx, swarm.SecretListOptions{})
	if err != nil {
		return nil, fault(fmt.Errorf("listing secrets: %w", err))
	}
	return list, nil
}
