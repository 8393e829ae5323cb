// Keys of EAP-TLS may come from TLS 1.2 without the extended master secret:
// package eap says why, and what makes it safe. Nothing else here uses TLS.
//
//go:debug tlsunsafeekm=1

// Command ipfw is a host firewall that gives every packet the verdict of one
// HCL policy: bypass, discard or protect (RFC 4301).
//
// This room is the command line. It is the only one that prints, reads flags
// and exits; what it says comes from rules (policies), engine (verdicts) and
// host (a running daemon).
package main

import "os"

func main() {
	os.Exit(newApp().execute(os.Args[1:]))
}
