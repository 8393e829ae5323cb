package vm

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// firstVerdict is what the guest prints when the first packet has been judged.
const firstVerdict = "the first verdict, of ipfw started "

// TestFirstVerdict measures how long it takes from the start of the emulator,
// and from the agent's first word, until ipfw has judged a first packet: a datagram
// that its policy rejects. Nobody else does, and the shut table only drops.
func TestFirstVerdict(t *testing.T) {
	if os.Getenv(lab.KernelVariable) != "" {
		judgeFirst(t)
		return
	}
	share := ""
	for _, k := range Kernels() {
		if !wanted(t, k, false) {
			continue
		}
		if share == "" {
			share = programs(t)
		}
		t.Run(k.Name, func(t *testing.T) {
			m := Boot(t, k, share, Config{})
			word, verdict := time.Now(), time.Duration(0)
			m.again(t, func(line string) {
				if strings.Contains(line, firstVerdict) {
					verdict = time.Since(word)
				}
			})
			t.Logf("Linux %s: %.1f s from the start of the emulator to the agent's first word, %.1f s from there to ipfw's first verdict (tests and hosts made in between)",
				m.Release, m.Booted.Seconds(), verdict.Seconds())
		})
	}
}

func judgeFirst(t *testing.T) {
	l, client, server := lab.Pair(t)
	policy := l.File("policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "no" {
  action      = "discard"
  direction   = "out"
  protocol    = "udp"
  remote_port = 9
  reject      = true
}
`)
	var sink, probe net.Conn
	err := server.Do(func() (err error) {
		sink, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 9})
		return err
	})
	if err == nil {
		err = client.Do(func() (err error) {
			probe, err = net.Dial("udp4", "10.77.0.1:9")
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	defer probe.Close()
	began := time.Now()
	client.StartIPFW(policy)
	l.Eventually(lab.Patience, "ipfw rejects", func() bool {
		_, err := probe.Write([]byte("?"))
		// Dropped by the shut table, or let through where there is none yet.
		return err != nil && !errors.Is(err, syscall.EPERM)
	})
	t.Logf("%s%v before", firstVerdict, time.Since(began).Round(time.Millisecond))
}
