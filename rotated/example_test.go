package rotated_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/rotated"
)

// What the Swarm gives a container between prepare and cutover of a credential
// with mounts: dual.
func Example() {
	dir, err := os.MkdirTemp("", "secrets")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for file, value := range map[string]string{"v1": "old and still good\n", "v2": "new\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600); err != nil {
			log.Fatal(err)
		}
	}
	os.Setenv("EXAMPLE_USER", "orders_a")
	os.Setenv("EXAMPLE_PASSWORD_FILE", filepath.Join(dir, "v1"))
	os.Setenv("EXAMPLE_USER_NEW", "orders_b")
	os.Setenv("EXAMPLE_PASSWORD_FILE_NEW", filepath.Join(dir, "v2"))

	source := rotated.Env(rotated.Vars{"EXAMPLE_USER": "username", "EXAMPLE_PASSWORD": "password"})
	list, err := source.Candidates(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range list {
		fmt.Println(c.Field("username"), c, "from", c.Origin())
	}
	// Output:
	// orders_a [redacted] from EXAMPLE_PASSWORD_FILE and EXAMPLE_USER
	// orders_b [redacted] from EXAMPLE_PASSWORD_FILE_NEW and EXAMPLE_USER_NEW
}

// A client of some other system: log in with what is there, and mark what is a
// refusal.
func ExampleSource_Do() {
	ctx := context.Background()
	source := rotated.Env(rotated.Vars{"BROKER_USER": "username", "BROKER_PASSWORD": "password"})

	var conn *Conn
	err := source.Do(ctx, func(ctx context.Context, c rotated.Credential) error {
		var err error
		conn, err = Dial(ctx, "broker:9092", c.Field("username"), c.Field("password"))
		if errors.Is(err, ErrAuthentication) {
			return rotated.Refused(err) // the next whole credential is tried
		}
		return err // nil, or the broker is away: no reason to try another password
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}

// On one machine without a Swarm: the directory of versions is mounted, and
// the credential moves while the application runs.
func ExampleDir() {
	ctx := context.Background()
	source := rotated.Dir("/run/creds/orders-db", "username", "password")

	c, err := source.Current(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	log.Printf("logging in as %s, credential from %s", c.Field("username"), c.Origin())
}

func ExampleSource_Watch() {
	ctx := context.Background()
	source := rotated.Dir("/run/creds/orders-db", "username", "password")
	c, err := source.Current(ctx)
	if err != nil {
		log.Print(err)
		return
	}

	for c, err := range source.Watch(ctx, c, 5*time.Second) {
		if err != nil {
			log.Print(err) // it is kept looking
			continue
		}
		log.Printf("the credential is now that of %s", c.Field("username"))
		reconnect()
	}
}

// What follows stands for the client library of the examples.

type Conn struct{}

func (*Conn) Close() {}

var ErrAuthentication = errors.New("authentication failed")

func Dial(context.Context, string, string, string) (*Conn, error) { return &Conn{}, nil }

func reconnect() {}
