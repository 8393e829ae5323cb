package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// peerPrograms is where e2e/install.sh unpacks IKE daemons of others. They are
// not installed: Debian's packages would start services and upgrade the
// machine's init.
const peerPrograms = "/var/cache/ipfw-e2e"

// PeersVariable is an environment variable: "no" in make test, which plays no
// emulated peers. Tests that have some are left out there by their names
// (.ci/gotest), and one whose name is not among them fails.
const PeersVariable = "IPFW_E2E_PEERS"

// aPeer is called for every peer that is not ipfw.
func aPeer(t testing.TB) {
	t.Helper()
	if os.Getenv(PeersVariable) == "no" {
		t.Fatalf("%s plays a peer that is not ipfw, so it belongs to make test-peers: name it in .ci/gotest", t.Name())
	}
}

// unpacked finds a package there, by release and name, with a program of it.
// run starts its programs: they have a C library of their own, so they are run
// by its loader; more are further folders of libraries.
func (l *Lab) unpacked(name, program string, more ...string) (root string, run []string) {
	l.Helper()
	aPeer(l)
	root = filepath.Join(peerPrograms, name)
	if _, err := os.Stat(filepath.Join(root, program)); err != nil {
		Skip(l, program+" is not unpacked in "+root+"; `make test-peers` as root does it")
	}
	const libs = "lib/x86_64-linux-gnu"
	loader := filepath.Join(root, libs, "ld-linux-x86-64.so.2")
	if _, err := os.Stat(loader); err != nil { // since trixie all is below usr
		loader = filepath.Join(root, "usr", libs, "ld-linux-x86-64.so.2")
	}
	folders := append(more, filepath.Join(root, libs), filepath.Join(root, "usr", libs))
	return root, []string{loader, "--library-path", strings.Join(folders, ":")}
}

// Tshark gives the command that runs the tshark of a release of Debian.
func (l *Lab) Tshark(release string) []string {
	l.Helper()
	root, run := l.unpacked(release+"-tshark", "usr/bin/tshark")
	return append(run, filepath.Join(root, "usr/bin/tshark"))
}
