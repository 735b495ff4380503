package remote

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Options are what a backend needs beside its settings, wherever its servers are. The zero
// Options work.
type Options struct {
	Getenv func(string) string         // where what is from-env is read; default os.Getenv
	Logger *slog.Logger                // what people should know and no result says; default: nowhere
	CA     []byte                      // the content of the file that the settings name as ca, PEM
	Ready  func(context.Context) error // if it is not nil, it is called before connections are made
	Dial   Dial                        // makes the connections; default: the network

	// Patience is how long to wait for servers to hear of a change. Default: 30 s.
	Patience time.Duration

	// Timeout bounds one request to one server. Default: [CallTimeout].
	Timeout time.Duration
}

// CallTimeout bounds one request to one server, and the trial of one endpoint.
const CallTimeout = 8 * time.Second

// Complete returns the options with their defaults filled in.
func (o Options) Complete() Options {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.Timeout = cmp.Or(o.Timeout, CallTimeout)
	return o
}

// InTurn asks one server after the other until one answers: with success, or with an error
// that is not of class Unknown. What is asked may have been done by one that did not answer, so it
// must do no harm when it is done again.
func InTurn[S any](ctx context.Context, servers []S, ask func(S) error) error {
	var errs []error
	for _, s := range servers {
		err := ask(s)
		if rotation.ClassOf(err) != rotation.Unknown {
			return err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}
