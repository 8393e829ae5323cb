package e2e

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
)

// scapyPeer is a running testdata/scapy_peer.py.
type scapyPeer struct {
	in  *json.Encoder
	out *bufio.Reader
}

// scapySA is an SA as scapy_peer.py takes it.
type scapySA struct {
	Protocol      string   `json:"protocol"`
	SPI           uint32   `json:"spi"`
	Seq           uint32   `json:"seq"`
	ESN           bool     `json:"esn"`
	High          uint32   `json:"high"` // upper half of the sequence number
	Encryption    string   `json:"encryption"`
	EncryptionKey string   `json:"encryption_key"`
	Integrity     string   `json:"integrity"`
	IntegrityKey  string   `json:"integrity_key"`
	Tunnel        []string `json:"tunnel,omitempty"` // outer source and destination
	Ports         []uint16 `json:"ports,omitempty"`  // of UDP encapsulation
}

// scapyNames are what scapy calls our algorithms. It has no AES-GMAC; CCM,
// CMAC and the old ciphers that it has are not ours.
var scapyNames = map[string]string{
	"aes-128-gcm-16": "AES-GCM", "aes-192-gcm-16": "AES-GCM", "aes-256-gcm-16": "AES-GCM",
	"chacha20-poly1305": "CHACHA20-POLY1305",
	"aes-128-cbc":       "AES-CBC", "aes-192-cbc": "AES-CBC", "aes-256-cbc": "AES-CBC",
	"aes-128-ctr": "AES-CTR", "aes-192-ctr": "AES-CTR", "aes-256-ctr": "AES-CTR",
	"insecure-null":     "NULL",
	"hmac-sha2-256-128": "SHA2-256-128", "hmac-sha2-384-192": "SHA2-384-192", "hmac-sha2-512-256": "SHA2-512-256",
	"hmac-sha1-96": "HMAC-SHA1-96",
}

// startScapy starts the peer. Debian's own Python has scapy, another in PATH
// may not.
func startScapy(t *testing.T) *scapyPeer {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import scapy.layers.ipsec").Run(); err != nil {
		lab.Skip(t, "python3-scapy is not installed; `make test` as root installs it")
	}
	cmd := exec.Command(python, "testdata/scapy_peer.py")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _, _ = io.Copy(io.Discard, stdout); _ = cmd.Wait() })
	return &scapyPeer{json.NewEncoder(stdin), bufio.NewReader(stdout)}
}

// ask has scapy seal or open one packet. The error is scapy's refusal.
func (s *scapyPeer) ask(t *testing.T, op string, sa scapySA, pkt []byte) ([]byte, error) {
	t.Helper()
	if err := s.in.Encode(map[string]any{"op": op, "sa": sa, "packet": hex.EncodeToString(pkt)}); err != nil {
		t.Fatal(err)
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("scapy ended: %v", err)
	}
	var answer struct{ Packet, Error string }
	if err := json.Unmarshal(line, &answer); err != nil {
		t.Fatalf("scapy said %q: %v", line, err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	b, err := hex.DecodeString(answer.Packet)
	if err != nil {
		t.Fatal(err)
	}
	return b, nil
}

// scapyOf describes the SA of c to scapy.
func scapyOf(c *esp.Config, encKey, macKey []byte) scapySA {
	s := scapySA{
		Protocol: c.Suite.Protocol.String(), SPI: c.SPI, Seq: 1, ESN: c.ESN,
		Encryption: scapyNames[c.Suite.Encryption.Name], EncryptionKey: hex.EncodeToString(encKey),
		Integrity: scapyNames[c.Suite.Integrity.Name], IntegrityKey: hex.EncodeToString(macKey),
	}
	if c.Mode == esp.Tunnel {
		s.Tunnel = []string{c.Src.String(), c.Dst.String()}
	}
	if c.Encap != (esp.Encap{}) {
		s.Ports = []uint16{c.Encap.SrcPort, c.Encap.DstPort}
	}
	return s
}
