// Package examples holds the example workflows, for keyturn init to write one.
package examples

import _ "embed"

// Rotate is rotate.yml: what is due is rotated, one phase per job.
//
//go:embed rotate.yml
var Rotate []byte
