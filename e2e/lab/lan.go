package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Lan joins hosts to a switch of its own, each by the interface "lan0" with
// its addresses, and gives the switch: a host on which the captures of the
// whole network are taken, at "sw0".
func (l *Lab) Lan(addrs map[*Host][]string) *Host {
	l.Helper()
	sw := l.Host("switch")
	sw.Run("ip", "link", "add", "sw0", "type", "bridge", "mcast_snooping", "0")
	sw.Run("ip", "link", "set", "sw0", "up")
	n := 0
	for _, h := range l.hosts {
		list, ok := addrs[h]
		if !ok {
			continue
		}
		port := fmt.Sprintf("port%d", n)
		n++
		l.Join(h, "lan0", list, sw, port, nil)
		sw.Run("ip", "link", "set", port, "master", "sw0")
	}
	return sw
}

// Scenario copies a folder of policies of the folder scenarios into the test's
// own, each policy NAME.hcl into a folder NAME, beside which its keys go.
func (l *Lab) Scenario(name string) {
	l.Helper()
	files, err := filepath.Glob(filepath.Join("scenarios", name, "*.hcl"))
	if err != nil || len(files) == 0 {
		l.Fatalf("scenario %s: no policies (%v)", name, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			l.Fatal(err)
		}
		l.File(l.policy(f), string(text))
	}
}

func (l *Lab) policy(file string) string {
	host := strings.TrimSuffix(filepath.Base(file), ".hcl")
	return filepath.Join(host, host+".hcl")
}

// RunScenario starts ipfw on a host with the policy that the scenario has for
// it under its name.
func (h *Host) RunScenario() *Daemon {
	h.lab.Helper()
	return h.IPFW(filepath.Join(h.lab.Dir, h.lab.policy(h.Name+".hcl")))
}
