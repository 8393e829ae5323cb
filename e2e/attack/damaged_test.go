package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// Damaged state is told and never opens the host, and no sequence number is used
// twice.
func TestDamagedState(t *testing.T) {
	a := attack(t, "G10", slip, "the file of sequence numbers is empty, or garbage")
	for _, what := range []string{"", "garbage\n"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, fmt.Sprintf("%s %d bytes", v.name, len(what)), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, native)
				policy := closed(native) + v.gatewayRules() + block
				d := s.run(policy)
				f.fence()
				last := f.highest()
				d.Signal(syscall.SIGTERM)
				if err := d.Wait(patience); err != nil {
					t.Fatal(err)
				}
				files, _ := filepath.Glob(filepath.Join(s.Dir, "gateway.state", "*.seq"))
				if len(files) == 0 {
					t.Fatal("no file of sequence numbers")
				}
				for _, file := range files {
					if err := os.WriteFile(file, []byte(what), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				box := receive(t, s.gateway, v.any(9999))
				d = s.gateway.StartIPFW(filepath.Join(s.Dir, "gateway/policy.hcl"))
				until(t, patience, func() bool {
					_, err := s.gateway.Try(patience, lab.Binary(t), "status", "--socket", d.Socket)
					return err == nil || !strings.Contains(fmt.Sprint(d.Wait(0)), "still running")
				})
				from := len(f.sequences())
				evil := marker("evil")
				s.wan.send(udp(t, v.far, 40001, v.self, 9999, evil))
				for i := range uint16(3) {
					f.send(echo(t, v.inner, v.self, 5000+i, 0, evil))
				}
				time.Sleep(3 * grace)
				if box.has(evil) {
					t.Errorf("the host is open. The daemon says: %s", d.Output())
				}
				again := 0
				for _, n := range f.sequences()[from:] {
					if n <= last {
						again++
					}
				}
				if again > 0 {
					t.Errorf("%d packets are sealed with sequence numbers that were used before", again)
				}
				told := until(t, patience, func() bool { // by the log, or by an event
					out, _ := s.gateway.Try(patience, lab.Binary(t), "events", "--socket", d.Socket)
					return strings.Contains(d.Output()+out, ".seq")
				})
				if !told {
					t.Errorf("the damaged file is not told: %s", d.Output())
				}
				a.saw(fmt.Sprintf("%s %d bytes", v.name, len(what)), "host open: %v; numbers used again: %d; told: %v", box.has(evil), again, told)
			})
		}
	}
}

// sequences are the sequence numbers of the sealed packets that came.
func (f *far) sequences() (list []uint32) {
	for _, ip := range f.s.wan.find(sealed) {
		var p packet.Packet
		if packet.Parse(&p, ip, len(ip)) == packet.OK && p.HasSPI {
			list = append(list, p.SPISeq)
		}
	}
	return list
}

func (f *far) highest() (n uint32) {
	for _, s := range f.sequences() {
		n = max(n, s)
	}
	return n
}
