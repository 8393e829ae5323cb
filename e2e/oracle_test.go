package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// The kernel is the oracle: random policies are written both for ipfw's engine
// and for nftables, random packets are sent through a real host, and both must
// say the same of each.
//
//	client c0 ------ s0 server s1 ------ f0 far
//	 10.77.0.2   10.77.0.1..8  10.88.0.1   10.88.0.2..8
//
// What the server accepts or forwards is written down by nftables itself, in
// a set of the packets' IPv4 identifications and IPv6 flow labels.
func TestKernelIsTheOracle(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.Need(t, "nft")
	client, server, far := l.Host("client"), l.Host("server"), l.Host("far")
	l.Join(client, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, server, "s0", oracleAddrs("10.77.0.%d/24", "fd77::%x/64", 1))
	l.Join(server, "s1", []string{"10.88.0.1/24", "fd88::1/64"}, far, "f0", oracleAddrs("10.88.0.%d/24", "fd88::%x/64", 2))
	server.Sysctl("net.ipv4.ip_forward", "1")
	server.Sysctl("net.ipv6.conf.all.forwarding", "1")
	// The far side is known without asking, so that no packet waits.
	farMAC := macOf(far, "f0")
	for i := 2; i <= 9; i++ {
		server.Run("ip", "neigh", "replace", fmt.Sprintf("10.88.0.%d", i), "lladdr", farMAC, "dev", "s1", "nud", "permanent")
		server.Run("ip", "neigh", "replace", fmt.Sprintf("fd88::%x", i), "lladdr", farMAC, "dev", "s1", "nud", "permanent")
	}
	wire := rawSocket(t, client, "c0", macOf(client, "c0"), macOf(server, "s0"))

	accepted := 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 99))
		policy := oraclePolicy(r)
		server.Run("nft", "-f", l.File("oracle.nft", nftablesOf(policy)))
		want := make(map[string]string) // packet mark to its line
		var sent []string
		for i := range 400 {
			b, dir := oraclePacket(r, i+1)
			wire.send(t, b)
			key := oracleKey(b)
			sent = append(sent, key)
			in := engine.Input{Dir: dir, InIf: "s0", Now: 1}
			if dir == engine.Forward {
				in.OutIf = "s1"
			}
			if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
				t.Fatalf("a packet built by the test is %v", f)
			}
			if engine.New(policy, engine.Options{}).Judge(&in).Verdict == engine.Bypass {
				want[key] = fmt.Sprintf("%v %v:%d -> %v:%d proto %d icmp %d/%d tos %d", dir, in.Packet.Src, in.Packet.SrcPort, in.Packet.Dst, in.Packet.DstPort, in.Packet.Protocol, in.Packet.ICMPType, in.Packet.ICMPCode, in.Packet.TOS)
			}
		}
		// The last packets may still be on their way.
		got := seenByNftables(server)
		for end := time.Now().Add(waitLong); len(got) < len(want) && time.Now().Before(end); {
			got = seenByNftables(server)
		}
		for _, key := range sent {
			if _, ok := want[key]; ok != got[key] {
				t.Fatalf("seed %d: packet %s (%s): ipfw lets it pass: %v, nftables: %v\n%s", seed, key, want[key], ok, got[key], nftablesOf(policy))
			}
		}
		accepted += len(want)
	}
	if accepted < 12*400/10 || accepted > 12*400*9/10 {
		t.Errorf("%d of %d packets pass: the policies tell little apart", accepted, 12*400)
	}
}

func oracleAddrs(v4, v6 string, first int) (list []string) {
	for i := first; i <= 8; i++ {
		list = append(list, fmt.Sprintf(v4, i), fmt.Sprintf(v6, i))
	}
	if first == 1 { // the client has number 2
		list = append(list[:2], list[4:]...)
	}
	return list
}

func macOf(h *lab.Host, dev string) string {
	return strings.TrimSpace(h.Run("cat", "/sys/class/net/"+dev+"/address"))
}

// wire sends frames by a packet socket.
type wire struct {
	fd   int
	to   syscall.SockaddrLinklayer
	head []byte
}

func rawSocket(t *testing.T, h *lab.Host, dev, src, dst string) *wire {
	t.Helper()
	w := new(wire)
	err := within(t, h, func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		w.to.Ifindex = ifi.Index
		w.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(w.fd) })
	d, _ := net.ParseMAC(dst)
	s, _ := net.ParseMAC(src)
	w.head = append(append(w.head, d...), s...)
	return w
}

func (w *wire) send(t *testing.T, ip []byte) {
	t.Helper()
	etherType := uint16(0x0800)
	if ip[0]>>4 == 6 {
		etherType = 0x86dd
	}
	frame := binary.BigEndian.AppendUint16(w.head[:12:12], etherType)
	if err := syscall.Sendto(w.fd, append(frame, ip...), 0, &w.to); err != nil {
		t.Fatal(err)
	}
}

// oraclePacket is a random packet with a mark of its own.
func oraclePacket(r *rand.Rand, mark int) ([]byte, engine.Direction) {
	v6 := r.IntN(2) == 0
	dir := engine.Direction(2 * r.IntN(2))
	s := packet.Spec{ID: uint32(mark), TOS: uint8(r.IntN(4)) << 2, SrcPort: uint16(r.IntN(12) + 1), DstPort: uint16(r.IntN(12) + 1), TCPFlags: packet.SYN, Payload: make([]byte, r.IntN(40))}
	n := byte(3 + r.IntN(6))
	to := byte(1)
	if x := byte(1 + r.IntN(8)); x != 2 {
		to = x
	}
	if dir == engine.Forward {
		to = byte(2 + r.IntN(7))
	}
	if v6 {
		third := byte(0x77)
		s.Src = netip.AddrFrom16([16]byte{0xfd, 0x66, 15: n})
		if dir == engine.Forward {
			third = 0x88
		}
		s.Dst = netip.AddrFrom16([16]byte{0xfd, third, 15: to})
	} else {
		second := byte(77)
		s.Src = netip.AddrFrom4([4]byte{10, 66, 0, n})
		if dir == engine.Forward {
			second = 88
		}
		s.Dst = netip.AddrFrom4([4]byte{10, second, 0, to})
	}
	switch r.IntN(5) {
	case 0, 1:
		s.Protocol = packet.TCP
	case 2:
		s.Protocol = packet.UDP
	case 3:
		s.Protocol, s.ICMPType, s.EchoID = packet.ICMP, 8, uint16(mark)
		if v6 {
			s.Protocol, s.ICMPType = packet.ICMPv6, 128
		}
	case 4:
		s.Protocol = packet.SCTP
	}
	b, err := packet.Build(s)
	if err != nil {
		panic(err)
	}
	if v6 { // the mark goes into the flow label
		b[2], b[3] = byte(mark>>8), byte(mark)
	}
	return b, dir
}

func oracleKey(b []byte) string {
	if b[0]>>4 == 6 {
		return fmt.Sprintf("6-%d", int(b[2])<<8|int(b[3]))
	}
	return fmt.Sprintf("4-%d", binary.BigEndian.Uint16(b[4:]))
}

func seenByNftables(h *lab.Host) map[string]bool {
	seen := make(map[string]bool)
	number := regexp.MustCompile(`\b\d+\b`)
	for family, set := range map[string]string{"4": "seen4", "6": "seen6"} {
		out := h.Run("nft", "-n", "list", "set", "inet", "oracle", set)
		i := strings.Index(out, "elements")
		if i < 0 {
			continue
		}
		for _, n := range number.FindAllString(out[i:], -1) {
			if _, err := strconv.Atoi(n); err == nil {
				seen[family+"-"+n] = true
			}
		}
	}
	return seen
}
