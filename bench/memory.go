package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ipfw/ipfw/bench/internal/report"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const memory = "memory"

// manyFlows is how many flows the daemon knows when its memory is measured:
// one for each port that is open to them and each of the sockets.
const (
	flowSockets = 2
	manyFlows   = flowSockets * (flowPortLast - flowPortFirst + 1)
)

var megabytes = report.Unit{Name: "MB", Less: true}

// runMemory opens the flows, and measures a daemon that has them and no others.
func runMemory(s *site) []figure {
	s.anew()
	// So that the far end's answer, port unreachable, is not what is measured.
	s.server.Sysctl("net.ipv4.icmp_ratelimit", "1000")
	s.client.Run(s.b.udp, "flows", s.target, fmt.Sprint(flowPortFirst), fmt.Sprint(flowPortLast-flowPortFirst+1), fmt.Sprint(flowSockets), "1500")
	var status struct {
		Flows int `json:"flows"`
	}
	s.check(json.Unmarshal([]byte(s.daemon.Ask("status", "--json")), &status), "ipfw status")
	if status.Flows < manyFlows*99/100 || status.Flows > manyFlows*101/100 {
		s.Fatalf("the daemon knows %d flows; %d were opened", status.Flows, manyFlows)
	}
	mb, err := residentMB(s.daemon.Cmd.Process.Pid)
	s.check(err, "memory of the daemon")
	return []figure{{memory, megabytes, mb}}
}

// anew gives the server a daemon, and a kernel, that know no flows.
func (s *site) anew() {
	s.daemon.Signal(syscall.SIGTERM)
	s.check(s.daemon.Wait(15*time.Second), "ipfw")
	ns, err := os.Open("/run/netns/" + s.server.NS)
	s.check(err, "namespace")
	defer ns.Close()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns.Fd())})
	s.check(err, "netlink socket")
	defer c.Close()
	const deleteAll = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: deleteAll, Flags: netlink.Request | netlink.Acknowledge},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, // struct nfgenmsg; no connection is named
	})
	s.check(err, "connection tracking")
	s.daemon = s.daemonOn(s.server, s.policy)
}

// residentMB is the memory of a process in millions of bytes: its proportional
// set size, which counts what is shared once.
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kb); n == 1 {
			return kb * 1024 / 1e6, nil
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}
