// Package e2e proves ipfw on whole hosts: network namespaces, real servers and
// clients, real captures. The tests need root; `make test` installs the
// programs they use.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

func TestMain(m *testing.M) {
	if was, err := lab.Agent(lab.Tools{"ah-aead": ahAEAD}); was {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	// The parallel tests wait more than they work.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(lab.Main(m))
}
