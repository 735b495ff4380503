package postgres

import "time"

// CheckServer judges a release and a clock, of servers that no test can start.
func CheckServer(version int, skew time.Duration) error {
	return checkServer(&server{name: "db:5432", version: version, skew: skew, encryption: "scram-sha-256"})
}
