// Package profiles holds the policies that ship inside the binary: each is a
// file that people can read, copy and change.
package profiles

import "embed"

// Files holds NAME.hcl for each profile.
//
//go:embed *.hcl
var Files embed.FS
