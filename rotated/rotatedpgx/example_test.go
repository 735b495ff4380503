package rotatedpgx_test

import (
	"context"
	"database/sql"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"
)

func ExampleConnect() {
	ctx := context.Background()
	config, err := pgx.ParseConfig("postgres://db:5432/orders?sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	source := rotated.Env(rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"})

	conn, err := rotatedpgx.Connect(ctx, source, config)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
}

// A connection string in a file: user and password are taken from it, and the
// rest from the application's own configuration.
func ExampleApply() {
	source := rotated.Files(map[string]string{"/run/secrets/db_url": "dsn"})
	c, err := source.Current(context.Background())
	if err != nil {
		log.Print(err)
		return
	}
	config, err := pgx.ParseConfig("postgres://db:5432/orders?sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	if err := rotatedpgx.Apply(c, config); err != nil {
		log.Fatal(err)
	}
	log.Printf("logging in as %s", config.User)
}

func ExampleBeforeConnect() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig("postgres://db:5432/orders?sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	source := rotated.Env(rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"})

	config.BeforeConnect = rotatedpgx.BeforeConnect(source)
	config.MaxConnLifetime = time.Hour // well below the overlap
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
}

// The pool lets go of its connections when the credential has moved.
func ExampleBeforeConnect_watch() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig("postgres://db:5432/orders?sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	source := rotated.Dir("/run/creds/orders-db", "username", "password")
	first, err := source.Current(ctx)
	if err != nil {
		log.Fatal(err)
	}
	config.BeforeConnect = rotatedpgx.BeforeConnect(source)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	go func() { // ends with ctx
		for _, err := range source.Watch(ctx, first, 5*time.Second) {
			if err != nil {
				log.Print(err)
				continue
			}
			pool.Reset() // what is in use ends when it is given back
		}
	}()
}

func ExampleConnector() {
	config, err := pgx.ParseConfig("postgres://db:5432/orders?sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	source := rotated.Env(rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"})

	db := sql.OpenDB(rotatedpgx.Connector(source, config))
	db.SetConnMaxLifetime(time.Hour) // well below the overlap
	defer db.Close()
}
