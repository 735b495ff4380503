// Package outcome holds the lines that the load application writes, one JSON
// object each, for itself and for those who read them.
package outcome

import "time"

// A Login is one login that the load application tried: one line of its
// output.
type Login struct {
	// Task names the task; Time is when the login began.
	Task string    `json:"task"`
	Time time.Time `json:"time"`
	// Took is the time that the login took, in milliseconds.
	Took float64 `json:"ms"`
	OK   bool    `json:"ok"`
	// Session and Current are the session's and the current user of a login
	// that worked.
	Session string `json:"session,omitempty"`
	Current string `json:"current,omitempty"`
	// Code is the SQLSTATE of a login that failed, or a word where PostgreSQL
	// has not answered: "credential" (could not be read), "timeout", "tls",
	// "connect".
	Code string `json:"code,omitempty"`
	// Error is PostgreSQL's message.
	Error string `json:"error,omitempty"`
}

// A Final is the last line of a task that ended in peace.
type Final struct {
	Task   string `json:"task"`
	Final  bool   `json:"final"`
	OK     int    `json:"ok_total"`
	Failed int    `json:"failed_total"`
}
