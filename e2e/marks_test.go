package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// python is the system's own, which nobody may run too.
const python = "/usr/bin/python3"

// unprivileged runs a command as nobody, who may open raw sockets and therefore
// mark packets, and nothing else.
var unprivileged = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
	"--inh-caps", "-all,+net_raw", "--ambient-caps", "-all,+net_raw", "--bounding-set", "-all,+net_raw"}

// fromLoopback sends a packet by loopback with each mark that makes a connection
// one of those that the kernel answers for, and then one of the same connection
// by the wire.
const fromLoopback = `
import socket, struct
port = 20000
for family, local, remote in ((socket.AF_INET, "10.77.0.1", "10.77.0.2"), (socket.AF_INET6, "fd77::1", "fd77::2")):
    for generation in range(8):
        for admitted in (0, 8):
            port += 1
            prime = socket.socket(family, socket.SOCK_DGRAM)
            prime.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            prime.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", (0x14 | admitted | generation << 5) << 24))
            prime.bind((local, port))
            try:
                prime.sendto(b"prime", (remote, 7777))
            except OSError:
                pass
            prime.close()
            plain = socket.socket(family, socket.SOCK_DGRAM)
            plain.bind((local, port))
            try:
                plain.sendto(b"past the policy", (remote, 7777))
            except OSError:
                pass
            plain.close()
print("sent")
`

// handedOn is what a program does with sockets that root has made for it.
const handedOn = `
import os, socket, sys
if os.getuid() == 0:
    fds = []
    for family in socket.AF_INET, socket.AF_INET6:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.set_inheritable(True)
        fds.append(str(s.detach()))
    os.execvp(sys.argv[1], sys.argv[1:] + fds)
for fd, remote in zip(sys.argv[-2:], ("10.77.0.2", "fd77::2")):
    s = socket.socket(fileno=int(fd))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x02000000)
    try:
        s.sendto(b"past the policy", (remote, 7777))
    except OSError:
        pass
print("sent")
`

// Whoever can mark packets gets nothing past the policy by it: not by what it
// sends on loopback, nor by a socket that root has made.
func TestMarksOfOthers(t *testing.T) { lab.EachOffload(t, tryMarksOfOthers) }

func tryMarksOfOthers(t *testing.T, _ string) {
	lab.Need(t, "setpriv", python)
	for _, policy := range []string{"discard", "protect"} {
		t.Run(policy, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			text := "policy {\n  inbound = \"discard\"\n  outbound = \"discard\"\n}\n"
			if policy == "protect" {
				block, _ := l.Blocks("pair", lab.Manual{Local: "10.77.0.1", Remote: "10.77.0.2", SPI: 0x1001})
				text = fmt.Sprintf(protectAll, "10.77.0.2") + block
			}
			server.IPFW(l.File("policy.hcl", text))
			wire := client.Capture("c0", "ip or ip6")
			for name, script := range map[string]string{"loopback": fromLoopback, "handed": handedOn} {
				file := l.File("/"+name+".py", script)
				args := append(append([]string{}, unprivileged...), python, "-c", script)
				if name == "handed" {
					args = append([]string{python, file}, args...)
				}
				if out, err := server.Try(time.Minute, args...); err != nil || !strings.Contains(out, "sent") {
					t.Fatalf("%s: %v\n%s", name, err, out)
				}
			}
			if wire.Contains("past the policy") {
				t.Errorf("on the wire:\n%s", wire.Text("udp port 7777"))
			}
		})
	}
}
