package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// TestTsharkReplay: replay takes packets that were captured before segmentation
// offload has cut them, and state no length, for as long as tshark does.
func TestTsharkReplay(t *testing.T) {
	lab.Need(t, "tshark")
	dir := t.TempDir()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	ends := [][2]string{{"198.51.100.1", "192.0.2.7"}, {"2001:db8::1", "2001:db8::7"}}
	for _, e := range ends {
		for _, size := range []int{1448, 14480, 100_000} {
			s := packet.Spec{Src: netip.MustParseAddr(e[0]), Dst: netip.MustParseAddr(e[1]), Protocol: packet.TCP, SrcPort: 80, DstPort: 40000, TCPFlags: packet.ACK}
			b, err := packet.Build(s)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, make([]byte, size)...)
			at := 2
			if s.Src.Is6() {
				at = 4
			}
			b[at], b[at+1] = 0, 0
			if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(b), Length: len(b)}, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	capture := filepath.Join(dir, "offloaded.pcap")
	policy := filepath.Join(dir, "open.hcl")
	for name, text := range map[string][]byte{capture: file.Bytes(), policy: []byte("policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n")} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// In IPv6 it has to be asked for.
	out, err := exec.Command("tshark", "-r", capture, "-o", "ipv6.tso_support:TRUE", "-T", "fields", "-e", "tcp.len").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Fields(string(out))
	out, err = exec.Command(lab.Binary(t), "replay", "-c", policy, "--local", "198.51.100.1,2001:db8::1", "--packets", "--json", capture).Output()
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for line := range strings.Lines(string(out)) {
		var p struct {
			Line    string `json:"line"`
			Verdict string `json:"verdict"`
			Bytes   int    `json:"bytes"`
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if p.Verdict == "" {
			continue // the report
		}
		header := 20 + 20
		if strings.Contains(p.Line, "[") {
			header = 40 + 20
		}
		ours = append(ours, fmt.Sprint(p.Bytes-header))
	}
	if len(theirs) != 6 || strings.Join(ours, " ") != strings.Join(theirs, " ") {
		t.Errorf("tshark reads %v bytes of TCP, replay %v", theirs, ours)
	}
}
