package vm

import (
	"fmt"
	"os"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

func TestMain(m *testing.M) {
	if was, err := lab.Agent(nil); was {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	os.Exit(lab.Main(m))
}
