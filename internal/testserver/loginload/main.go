// Loginload is the application that tests and the demo rotate a credential
// under. It logs in to PostgreSQL again and again, each time with a new
// connection and with the credential read afresh from where it is mounted,
// exactly one user and one password, without any fallback. Every outcome is a
// JSON line on its output and, if LOAD_DIR is set, in a file of its own there.
// On SIGTERM it finishes the login in hand, writes its totals and ends with
// status 0.
//
// "loginload health" is the image's HEALTHCHECK: it succeeds while logins work.
// "loginload once" tries a single login and ends with 0 or 1.
//
// The environment:
//
//	DATABASE_URL_FILE        a file that holds a whole URL, with user and password; or
//	POSTGRES_USER            the user (or POSTGRES_USER_FILE), and
//	POSTGRES_PASSWORD_FILE   the file that holds the password, and
//	POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB
//	POSTGRES_CA_FILE         the certificate authority; verify-full always
//	CONSUL_HTTP_ADDR         Consul instead: a key below LOAD_KV_PREFIX is written and
//	                         read, with the token in CONSUL_HTTP_TOKEN_FILE and
//	                         the authority in CONSUL_CACERT
//	KAFKA_BROKERS            Kafka instead: records of a number that grows are produced
//	                         to LOAD_TOPIC, or consumed from there as the group LOAD_GROUP,
//	                         on one connection; as KAFKA_USERNAME with the password in
//	                         KAFKA_PASSWORD_FILE, by KAFKA_SASL_MECHANISM (SCRAM-SHA-256;
//	                         default: SCRAM-SHA-512), and the authority in KAFKA_CA_FILE.
//	                         LOAD_DIR then holds the records, too
//	LOAD_TELL                a file to which the password is added, for a test that
//	                         looks for it elsewhere (Kafka)
//	TLS_LISTEN               TLS instead: it serves the pair in TLS_CERT_FILE and TLS_KEY_FILE
//	                         there, and asks TLS_CONNECT, where it must find TLS_NAME by
//	                         the authorities in TLS_ROOTS
//	LOAD_DIR                 a shared folder for the outcomes
//	LOAD_TASK                the task's name (in Swarm: {{.Task.Name}})
//	LOAD_EVERY               the pause between the starts of two logins, default 20ms
//	LOAD_TIMEOUT             the limit of one login, default 20s
//	LOAD_HEALTH_FILE         default /tmp/loginload.health
//	LOAD_UNHEALTHY_USER      a user as whom the application calls itself unhealthy,
//	                         though its logins work: a release that is broken
//	LOAD_ALSO                a prefix: with "SECOND_" it logs in with a second
//	                         credential, too, which SECOND_POSTGRES_USER and so
//	                         on name; what is not set is as for the first
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loginload:", err)
		os.Exit(1)
	}
}

// run dispatches on the only argument.
func run(args []string) error {
	c, err := readConfig(os.Getenv)
	if err != nil {
		return err
	}
	all := []config{c}
	if prefix := os.Getenv("LOAD_ALSO"); prefix != "" {
		also, err := readConfig(func(name string) string { return cmp.Or(os.Getenv(prefix+name), os.Getenv(name)) })
		if err != nil {
			return err
		}
		also.task, also.healthFile = c.task+".also", c.healthFile+".also"
		all = append(all, also)
	}
	command := "run"
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "run":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return runAll(ctx, all)
	case "once":
		o := c.login(context.Background())
		if !o.OK {
			return fmt.Errorf("logging in: %s: %s", o.Code, o.Error)
		}
		return nil
	case "health":
		for _, c := range all {
			if err := checkHealth(c); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("unknown command %q: run, once or health", command)
}

// runAll runs the loads until ctx ends or one of them cannot go on.
func runAll(ctx context.Context, all []config) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ends := make(chan error, len(all))
	for _, c := range all {
		go func() {
			defer stop()
			ends <- newLoad(c).run(ctx)
		}()
	}
	var errs []error
	for range all {
		errs = append(errs, <-ends)
	}
	return errors.Join(errs...)
}
