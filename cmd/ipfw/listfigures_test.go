package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How long a list of random addresses takes to load, and how much memory, beside
// nft with the same as a set in a network namespace of its own: make list-figures.
func TestFigureLists(t *testing.T) {
	if os.Getenv("IPFW_LIST_FIGURES") == "" {
		t.Skip("figures, not a test: make list-figures")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	bin := filepath.Join(dir, "ipfw")
	build := exec.Command("go", "build", "-o", bin, "github.com/ipfw/ipfw/cmd/ipfw")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const head = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\nrule \"list\" {\n  action         = \"discard\"\n  direction      = \"both\"\n  remote_address = "
	for _, n := range []int{5000, 20000, 80000, 200000, 1000000} {
		r := rand.New(rand.NewPCG(uint64(n), 1))
		addrs := make([]string, n)
		for i := range addrs {
			x := 1<<24 + r.Uint32N(222<<24)
			addrs[i] = fmt.Sprintf("%d.%d.%d.%d", x>>24, x>>16&255, x>>8&255, x&255)
		}
		write("list.txt", strings.Join(addrs, "\n")+"\n")
		measure(t, n, "ipfw validate, file(...)", bin, "validate", write("file.hcl", head+"file(\"list.txt\")\n}\n"))
		if n <= 200000 { // more pass the bound of a policy's text
			measure(t, n, "ipfw validate, written out", bin, "validate", write("written.hcl", head+`["`+strings.Join(addrs, `", "`)+"\"]\n}\n"))
		}
		set := write("set.nft", "table inet t {\n set s {\n type ipv4_addr\n elements = { "+strings.Join(addrs, ",\n")+" }\n }\n}\n")
		measure(t, n, "nft -f, a set", "unshare", "-n", "nft", "-f", set)
	}
}

// measure runs a command and prints what it took.
func measure(t *testing.T, n int, what string, args ...string) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	begun := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %.500s", args, err, out)
	}
	wall := time.Since(begun)
	fmt.Printf("%9d  %-28s %7.2f s user %7.2f s system %7.2f s wall %6d MiB\n", n, what,
		c.ProcessState.UserTime().Seconds(), c.ProcessState.SystemTime().Seconds(), wall.Seconds(), c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss>>10)
}
