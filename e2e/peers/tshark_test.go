package peers

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// talk lets two cores of ours make an IKE SA, a child, and rekey both, and
// gives what went over the wire and the rows of the key table.
func talk(t *testing.T, suite string, pq bool) (wire []ike.Datagram, rows []string) {
	t.Helper()
	a, b := netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500")
	props := proposal(t, ike.ProtoIKE, suite)
	if pq {
		props[0].Transforms = append(props[0].Transforms, ike.Transform{Type: ike.TransformADDKE, ID: ike.KEMLKEM768})
	}
	core := func(name, other string, remote netip.AddrPort) *ike.Core {
		id, _ := ike.ParseIdentity(name)
		c, err := ike.New(ike.Config{Rand: rand.Reader, KeyLog: func(row string) { rows = append(rows, row) }, Peers: []*ike.Peer{{
			Name: other, Endpoint: remote, LocalID: id, RemoteID: other, PSK: []byte(secret), Proposals: props, Children: []*ike.Child{{Name: "net"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	x, y := core("us.example", "peer.example", b), core("peer.example", "us.example", a)
	now := time.Now()
	up := 0
	run := func(o ike.Output) {
		for queue := o.Send; len(queue) > 0; queue = queue[1:] {
			d := queue[0]
			wire = append(wire, d)
			to := x
			if d.Remote.Addr() == b.Addr() {
				to = y
			}
			o := to.Handle(now, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})
			for _, e := range o.Events {
				if e.Kind == ike.ChildUp || e.Kind == ike.ChildRekeyed || e.Kind == ike.IKERekeyed {
					up++
				}
			}
			queue = append(queue, o.Send...)
		}
	}
	o, err := x.Initiate(now, ike.Call{Peer: "peer.example", Child: "net", Local: a})
	if err != nil {
		t.Fatal(err)
	}
	run(o)
	run(x.Rekey(now, "peer.example", "net"))
	run(x.Rekey(now, "peer.example", ""))
	run(x.Rekey(now, "peer.example", "net"))
	if up != 8 {
		t.Fatalf("%d steps of 8 went well", up)
	}
	return wire, rows
}

// writePcap writes datagrams as a capture of bare IP packets.
func writePcap(t *testing.T, path string, wire []ike.Datagram) {
	t.Helper()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(le.AppendUint32(b, 0), 0), 1<<16), 101)
	for i, d := range wire {
		data := d.Data
		if d.Local.Port() == 4500 {
			data = append(make([]byte, 4), data...)
		}
		p, err := packet.Build(packet.Spec{Src: d.Local.Addr(), Dst: d.Remote.Addr(), Protocol: packet.UDP, SrcPort: d.Local.Port(), DstPort: d.Remote.Port(), Payload: data})
		if err != nil {
			t.Fatal(err)
		}
		b = le.AppendUint32(le.AppendUint32(b, uint32(i)), 0)
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(p))), uint32(len(p)))
		b = append(b, p...)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTshark gives tshark a capture of our messages and the key table that a
// Core exports: it must read every encrypted payload and find every checksum
// good, for each cipher it knows (4.0 does not know ChaCha20-Poly1305 in IKE).
func TestTshark(t *testing.T) {
	lab.Need(t, "tshark")
	for _, p := range protections() {
		if p == "chacha20-poly1305" {
			continue
		}
		t.Run(p, func(t *testing.T) { tsharkReads(t, p+" prf-hmac-sha2-256 x25519", false) })
	}
	t.Run("ml-kem", func(t *testing.T) { tsharkReads(t, "aes-128-gcm-16 prf-hmac-sha2-256 x25519", true) })
}

// tsharkReads has it read one conversation. The table knows one set of keys for
// a pair of SPIs: with IKE_INTERMEDIATE that is the last.
func tsharkReads(t *testing.T, suite string, pq bool) {
	wire, rows := talk(t, suite, pq)
	dir := t.TempDir()
	path := filepath.Join(dir, "ike.pcap")
	writePcap(t, path, wire)
	args := []string{"-r", path, "-V", "-O", "isakmp"}
	for _, r := range rows {
		args = append(args, "-o", "uat:ikev2_decryption_table:"+r)
	}
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	b, err := cmd.CombinedOutput()
	out := string(b)
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, out)
	}
	sealed, before := 0, 0
	for _, d := range wire {
		switch d.Data[18] {
		case 34: // IKE_SA_INIT
		case 43: // IKE_INTERMEDIATE: under the first keys of these SPIs
			before++
			fallthrough
		default:
			sealed++
		}
	}
	good, bad := strings.Count(out, "[correct]"), strings.Count(out, "[incorrect")
	t.Logf("%d encrypted messages, %d good, %d bad, %d of IKE_INTERMEDIATE", sealed, good, bad, before)
	if good != sealed-before || bad != before || sealed < 14 {
		t.Errorf("tshark finds %d checksums good and %d bad, of %d messages", good, bad, sealed)
	}
	// What is inside, as tshark names it.
	for what, n := range map[string]int{"FQDN: us.example": 1, "FQDN: peer.example": 2, "Shared Key Message Integrity Code": 2,
		"Notify Message Type: REKEY_SA": 2, "Starting Addr: 192.0.2.1": 6, "Payload: Delete": 5, "Payload: Key Exchange": 1} {
		if got := strings.Count(out, what); got < n {
			t.Errorf("tshark shows %q %d times, want %d at least", what, got, n)
		}
	}
	if !pq && strings.Contains(out, "Malformed") {
		t.Error("tshark calls a message malformed")
	}
}
