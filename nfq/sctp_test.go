package nfq

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// A checksum of SCTP that the kernel has spoilt on its way into the queue goes on
// mended, out and in; one that is wrong otherwise goes on as it was.
func TestSCTPChecksum(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		for _, judging := range []string{"client", "server"} {
			client, server := pair(t)
			hosts := map[string]*testHost{"client": client, "server": server}
			hosts[judging].start(cfg, pass)
			for _, ends := range [][2]netip.Addr{{addr4(0, 1), addr4(0, 2)}, {addr6(0, 1), addr6(0, 2)}} {
				right := []byte("\x1f\x90\x1f\x91tag4\x00\x00\x00\x00\x06\x00\x00\x04") // ports, tag, checksum, an ABORT chunk
				spoilt, wrong := slices.Clone(right), slices.Clone(right)
				packet.SetChecksum(right, ends[0], ends[1], packet.SCTP)
				binary.BigEndian.PutUint16(spoilt[8:], packet.Checksum(spoilt, 0))
				wrong[8] = 1
				for _, row := range []struct {
					what       string
					sent, want []byte
				}{{"right", right, right}, {"spoilt", spoilt, right}, {"wrong", wrong, wrong}} {
					if got := carried(t, client, server, ends, row.sent); !slices.Equal(got, row.want) {
						t.Errorf("%s judges, %v, %s: came as %x, want %x", judging, ends[1], row.what, got, row.want)
					}
				}
			}
		}
	})
}

// carried sends a packet of SCTP until one comes, and gives that.
func carried(t *testing.T, from, to *testHost, ends [2]netip.Addr, segment []byte) []byte {
	t.Helper()
	network := "ip4:132"
	if ends[0].Is6() {
		network = "ip6:132"
	}
	var in, out net.PacketConn
	var err error
	var lc net.ListenConfig
	to.do(func() { in, err = lc.ListenPacket(context.Background(), network, ends[1].String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	from.do(func() { out, err = lc.ListenPacket(context.Background(), network, ends[0].String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b := make([]byte, 1500)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := out.WriteTo(segment, &net.IPAddr{IP: ends[1].AsSlice()}); err != nil {
			t.Logf("send: %v", err)
		}
		_ = in.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := in.ReadFrom(b); err == nil {
			return b[:n]
		}
	}
	return nil
}
