package attack

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

const psk = "a secret of the test, long enough"

// callers is a gateway that anybody may call, with a pre-shared key for those
// who have it. more goes into its ike block in place of the key.
func (s *site) callers(more string) string {
	s.Helper()
	if more == "" {
		s.File("gateway/psk", psk+"\n")
		more = "  psk_file = \"psk\"\n"
	}
	return closed(native) + fmt.Sprintf(`
rule "calls" {
  action         = "protect"
  with           = "calls"
  direction      = "both"
  remote_address = %q
}
ipsec "calls" {
  mode = "tunnel"
  ike  = "calls"
}
ike "calls" {
  local_id  = "gateway.example"
%s}
`, s.v.innerNet, more)
}

// addresses gives the outside n more addresses, one in each /64 or of a range,
// and the gateway the way there.
func (s *site) addresses(n int) (list []netip.Addr) {
	s.Helper()
	net := map[string]string{"v4": "10.96.0.0/16", "v6": "fd96::/32"}[s.v.name]
	s.beyond.Run("ip", "route", "add", "local", net, "dev", "lo")
	s.gateway.Run("ip", "route", "add", net, "via", s.v.far.String())
	s.beyond.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind")
	for i := range n {
		if s.v.name == "v4" {
			list = append(list, netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}))
			continue
		}
		a := [16]byte{0: 0xfd, 1: 0x96, 15: 1}
		binary.BigEndian.PutUint32(a[4:], uint32(i))
		list = append(list, netip.AddrFrom16(a))
	}
	return list
}

// honest is a caller who has the key: the handshake must complete, with a child.
func (s *site) honest(from netip.Addr, id string) error {
	c := newInitiator(s, s.beyond, from, s.v.self)
	defer c.close()
	if _, err := c.begin(groupX25519, int(patience/time.Second)); err != nil {
		return fmt.Errorf("IKE_SA_INIT: %w", err)
	}
	me := idFQDN(id)
	list, err := c.request(exAuth, int(patience/time.Second), append([]payloadOf{{plIDi, me}, c.authPSK(me, psk)},
		childPayloads(0x7001, netip.PrefixFrom(s.v.inner, s.v.inner.BitLen()), netip.PrefixFrom(s.v.self, s.v.self.BitLen()))...)...)
	if err != nil {
		return fmt.Errorf("IKE_AUTH: %w", err)
	}
	if find(list, plAUTH) == nil || find(list, plSA) == nil {
		return fmt.Errorf("IKE_AUTH: %s", notice(list))
	}
	c.remove()
	return nil
}

// certificates gives the gateway a CA and a certificate of its own, and an ike
// block's lines for them.
func (s *site) certificates() string {
	s.Helper()
	dir := filepath.Join(s.Dir, "gateway", "pki")
	s.gateway.Run(lab.Binary(s), "pki", "init", "--dir", dir)
	s.gateway.Run(lab.Binary(s), "pki", "issue", "--dir", dir, "gateway.example")
	return "  certificate = \"pki/gateway.example.pem\"\n  private_key = \"pki/gateway.example.key\"\n  ca = \"pki/ca.pem\"\n"
}

// Messages with texts of any length from strangers fill neither the log nor
// memory.
func TestLongTextsOfStrangers(t *testing.T) {
	a := attack(t, "G13", offPath, "240 IKE_SA_INIT of 64 KB from forged addresses")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		d := s.run(s.callers(""))
		if err := s.honest(v.far, "ann.example"); err != nil {
			t.Fatal(err)
		}
		logWas, memWas := len(d.Output()), highWater(t, d.Cmd.Process.Pid)
		var proposals []byte
		for i := range 64 {
			var ts []byte
			for k := range 125 {
				ts = append(ts, transform(k == 124, 1+byte(k%4), uint16(20000+k), 0)...)
			}
			more := byte(2)
			if i == 63 {
				more = 0
			}
			proposals = append(proposals, more, 0)
			proposals = binary.BigEndian.AppendUint16(proposals, uint16(8+len(ts)))
			proposals = append(append(proposals, byte(i+1), 1, 0, 125), ts...)
		}
		nonce := make([]byte, 32)
		addrs := s.addresses(240)
		for i, from := range addrs {
			c := &initiator{t: t}
			_, _ = rand.Read(c.spiI[:])
			kind, b := chain([]payloadOf{{plSA, proposals}, {plKE, append([]byte{0, 31, 0, 0}, make([]byte, 32)...)}, {plNonce, nonce}})
			msg := append(c.header(kind, exInit, 0, 28+len(b)), b...)
			whole := udp(t, from, 500, v.self, 500, string(msg))
			parts, err := packet.Fragment(whole, 1480, uint32(1000+i))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				s.wan.send(p)
			}
			time.Sleep(20 * time.Millisecond) // events of strangers are ten a second
		}
		if err := s.honest(v.far, "ann.example"); err != nil {
			t.Errorf("an honest caller: %v", err)
		}
		text, events := len(d.Output())-logWas, len(d.Ask("events"))
		mem := highWater(t, d.Cmd.Process.Pid) - memWas
		const most = 256 << 10
		if text > most || events > most {
			t.Errorf("strangers have made %d bytes of log and %d of events", text, events)
		}
		a.saw(v.name, "%d bytes of log, %d of events, memory's highest %d KiB more", text, events, mem)
	})
}

// Strangers who stop in the middle of EAP keep nobody out.
func TestPlacesOfEAP(t *testing.T) {
	a := attack(t, "G14", offPath, "512 conversations that stop in the middle of EAP")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.run(s.callers(s.certificates() + "  remote_auth = \"eap-tls\"\n  remote_id = \"*\"\n"))
		addrs := s.addresses(64)
		open := func(from netip.Addr, tries int) (string, error) {
			c := newInitiator(t, s.beyond, from, v.self)
			defer c.close()
			if _, err := c.begin(groupX25519, tries); err != nil {
				return "", err
			}
			me := idFQDN("ann.example")
			list, err := c.request(exAuth, tries, append([]payloadOf{{plIDi, me}},
				childPayloads(0x7001, netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)...)
			if err != nil {
				return "", err
			}
			if find(list, plEAP) != nil {
				return "eap", nil
			}
			return notice(list), nil
		}
		if got, err := open(v.far, 30); got != "eap" {
			t.Fatalf("EAP does not begin: %s %v", got, err)
		}
		places := 0
		for i := range 512 {
			if got, _ := open(addrs[i%32], 2); got == "eap" {
				places++
			}
		}
		served := 0
		var last string
		for _, from := range addrs[40:50] {
			got, err := open(from, 10)
			if got == "eap" {
				served++
			}
			last = fmt.Sprint(got, " ", err)
		}
		if served < 9 {
			t.Errorf("of 10 honest callers %d get as far as EAP: %s", served, last)
		}
		a.saw(v.name, "attackers in the middle of EAP: %d; then %d of 10 honest callers are served", places, served)
	})
}
