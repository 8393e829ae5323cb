package packet

import "testing"

func TestNoAllocs(t *testing.T) {
	syn := build(t, Spec{Protocol: TCP, TCPFlags: SYN})
	chain := build(t, six(Spec{Protocol: UDP}, Extension{Header: HopByHop}, Extension{Header: DestOptions}))
	tooBig := build(t, six(Spec{Protocol: ICMPv6, ICMPType: 2, Payload: chain}))
	buf := make([]byte, 0, 2048)
	var p, q Packet
	rows := map[string]func(){
		"Parse IPv4":        func() { Parse(&p, syn, len(syn)) },
		"Parse IPv6":        func() { Parse(&p, chain, len(chain)) },
		"Parse, a fault":    func() { Parse(&p, syn[:30], len(syn)) },
		"Quoted":            func() { Parse(&p, tooBig, len(tooBig)); p.Quoted(&q) },
		"Reset":             func() { Parse(&p, syn, len(syn)); buf = Reset(buf[:0], &p) },
		"Unreachable, IPv4": func() { Parse(&p, syn, len(syn)); buf = Unreachable(buf[:0], &p, v4b) },
		"Unreachable, IPv6": func() { Parse(&p, chain, len(chain)); buf = Unreachable(buf[:0], &p, v6b) },
		"names":             func() { ServiceName(443, TCP); ServicePort("https"); ProtocolNumber("tcp") },
	}
	for name, f := range rows {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if len(buf) == 0 {
		t.Error("no answer was built")
	}
}

func BenchmarkParse(b *testing.B) {
	for _, r := range []struct {
		name string
		spec Spec
	}{
		{"tcp4", Spec{Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 64)}},
		{"udp4", Spec{Protocol: UDP, Payload: make([]byte, 64)}},
		{"esp4", Spec{Protocol: ESP, SPI: 256, Payload: make([]byte, 64)}},
		{"tcp6", six(Spec{Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 64)})},
		{"chain6", six(Spec{Protocol: UDP}, Extension{Header: HopByHop}, Extension{Header: DestOptions})},
		{"fragment4", Spec{Protocol: UDP, Fragment: true, FragOffset: 1480, Payload: make([]byte, 64)}},
	} {
		bytes := build(b, r.spec)
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			var p Packet
			for b.Loop() {
				if Parse(&p, bytes, len(bytes)) != OK {
					b.Fatal("fault")
				}
			}
		})
	}
}

func BenchmarkChecksum1500(b *testing.B) {
	data := make([]byte, 1500)
	b.SetBytes(1500)
	for b.Loop() {
		Checksum(data, 0)
	}
}
