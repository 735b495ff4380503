package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/jackc/pgx/v5/pgconn"
)

// held is a credential as the tasks of a stack hold it.
type held struct{ login, password string }

// An Answer is what PostgreSQL said to a login of ours.
type Answer struct {
	Login string
	Code  string // the SQLSTATE of the refusal, or "accepted"
}

// Refused says that the password was wrong.
func (a Answer) Refused() bool { return a.Code == "28P01" }

const accepted = "accepted"

// remember reads what the tasks hold now, as their containers see it, and
// checks that it works: else its death could not be shown.
func (k *Stack) remember(ctx context.Context) error {
	e := k.scene.engine
	tasks, err := e.WaitTasks(ctx, k.id, swarm.TaskStateRunning, replicas)
	if err != nil {
		return err
	}
	now := held{}
	for _, entry := range tasks[0].Spec.ContainerSpec.Env {
		if value, ok := strings.CutPrefix(entry, "POSTGRES_USER="); ok {
			now.login = value
		}
	}
	mounted, err := e.TaskFile(ctx, tasks[0], "/run/secrets/"+k.Secret)
	if err != nil {
		return err
	}
	now.password = strings.TrimSuffix(string(mounted), "\n")
	answer, err := k.try(ctx, now)
	if err != nil {
		return err
	}
	if answer.Code != accepted {
		return fmt.Errorf("logging in as %q with what the tasks hold: refused with %s", answer.Login, answer.Code)
	}
	k.old = append(k.old, now)
	return nil
}

// tryOld logs in with everything that was remembered.
func (k *Stack) tryOld(ctx context.Context) ([]Answer, error) {
	var answers []Answer
	for _, h := range k.old {
		answer, err := k.try(ctx, h)
		if err != nil {
			return answers, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// try logs in once.
func (k *Stack) try(ctx context.Context, h held) (Answer, error) {
	conn, err := k.scene.postgres.Connect(ctx, h.login, h.password, database)
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		return Answer{Login: h.login, Code: refusal.Code}, nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("logging in as %q: %w", h.login, err)
	}
	return Answer{Login: h.login, Code: accepted}, conn.Close(ctx)
}

// update asks Swarm for its last update of the service.
func (k *Stack) update(ctx context.Context) (Update, error) {
	u := Update{Ended: time.Now()}
	found, err := k.inspect(ctx)
	if err != nil || found.UpdateStatus == nil || found.UpdateStatus.StartedAt == nil {
		return Update{}, err
	}
	u.Began = *found.UpdateStatus.StartedAt
	if done := found.UpdateStatus.CompletedAt; done != nil {
		u.Ended = *done
	}
	return u, nil
}

// calm waits until Swarm has ended its last update of the service: until then it
// writes to the service itself, and an update of ours may come too late.
func (k *Stack) calm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		found, err := k.inspect(ctx)
		if err != nil {
			return err
		}
		if u := found.UpdateStatus; u == nil || u.State != swarm.UpdateStateUpdating {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of the update of %q: %w", k.Service(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// movedFrom counts the running tasks whose secrets are not those that the
// service mounted before.
func (k *Stack) movedFrom(ctx context.Context, before string) (int, error) {
	tasks, err := k.scene.engine.Tasks(ctx, k.id)
	if err != nil {
		return 0, err
	}
	moved := 0
	for _, t := range tasks {
		if t.Status.State == swarm.TaskStateRunning && secretNames(t.Spec) != before {
			moved++
		}
	}
	return moved, nil
}

// mounts names the secrets that the service mounts now.
func (k *Stack) mounts(ctx context.Context) (string, error) {
	found, err := k.inspect(ctx)
	if err != nil {
		return "", err
	}
	return secretNames(found.Spec.TaskTemplate), nil
}

func (k *Stack) inspect(ctx context.Context) (swarm.Service, error) {
	found, _, err := k.scene.engine.Client().ServiceInspectWithRaw(ctx, k.id, swarm.ServiceInspectOptions{})
	if err != nil {
		return found, fmt.Errorf("looking at the service %q: %w", k.Service(), err)
	}
	return found, nil
}

func secretNames(task swarm.TaskSpec) string {
	var names []string
	for _, ref := range task.ContainerSpec.Secrets {
		names = append(names, ref.SecretName)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
