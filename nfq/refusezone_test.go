package nfq

import (
	"net"
	"testing"

	"github.com/ipfw/ipfw/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A connection that the policy in force lets pass is not cut by a packet of
// another one with the same addresses and ports, in another zone of connection
// tracking. One that an earlier policy has let pass is.
func TestRefusalsLeaveTheConnectionsOfOtherZones(t *testing.T) {
	t.Parallel()
	_, server := pair(t)
	fw := server.start(Config{Offload: 1}, pass)
	if fw.connections == nil {
		t.Skip("this kernel does not offload")
	}
	for _, row := range []struct {
		name     string
		src, dst string
		family   netlink.InetFamily
	}{
		{"IPv4", "192.0.2.7", "192.0.2.8", unix.AF_INET},
		{"IPv6", "2001:db8::7", "2001:db8::8", unix.AF_INET6},
	} {
		for i, ago := range []uint32{0, 1} {
			from, to := net.IP(addrOf(row.src).AsSlice()), net.IP(addrOf(row.dst).AsSlice())
			ports := uint16(1000 + i)
			g := (fw.generation + generations - ago) % generations
			flow := &netlink.ConntrackFlow{
				FamilyType: uint8(row.family), TimeOut: 100,
				Forward: netlink.IPTuple{SrcIP: from, DstIP: to, SrcPort: ports, DstPort: 7, Protocol: unix.IPPROTO_UDP},
				Reverse: netlink.IPTuple{SrcIP: to, DstIP: from, SrcPort: 7, DstPort: ports, Protocol: unix.IPPROTO_UDP},
			}
			server.try(func() error { return netlink.ConntrackCreate(netlink.ConntrackTable, row.family, flow) })
			p := packet.Packet{Version: 4, Src: addrOf(row.src), Dst: addrOf(row.dst), Protocol: packet.UDP, SrcPort: ports, DstPort: 7}
			if row.family == unix.AF_INET6 {
				p.Version = 6
			}
			r := refusal{generation: fw.generation, policy: fw.offload.Load()}
			r.name, r.family = nameOf(&p)
			if err := fw.connections.mark(r.name, r.family, fw.marks.answered(g, false), fw.marks.asked()); err != nil {
				t.Fatal(err)
			}
			if _, err := fw.refuseOne(&r); err != nil {
				t.Fatal(err)
			}
			var mark uint32
			if err := fw.connections.find(r.name, r.family, func(c *connection) { mark = c.mark }); err != nil || mark == 0 {
				t.Fatalf("%s: mark %#x, %v", row.name, mark, err)
			}
			if cut := mark&fw.marks.refused() != 0; cut != (ago != 0) {
				t.Errorf("%s, let pass %d generations ago: mark %#x, cut: %v", row.name, ago, mark, cut)
			}
		}
	}
}
