package rules

import (
	"errors"

	"github.com/ipfw/ipfw/esp"
)

// NATPort is the port of ESP in UDP (RFC 3948 section 2.1).
const NATPort = 4500

// ManualSAs reads the keys of a manual block and gives the two SAs that it
// stands for, inbound and outbound. Without local_endpoint, which transport
// mode does not need, the caller fills in the local address: Dst of the inbound
// one may stay open, Src of the outbound one may not. The caller sets Created
// and wipes the keys of the configs when the SAs are made.
func (s *IPsec) ManualSAs() (in, out esp.Config, err error) {
	m := s.Manual
	if m == nil {
		return in, out, errors.New("ipsec " + s.Name + " has no manual block")
	}
	suite, err := m.suite(s.AH)
	if err != nil {
		return in, out, err
	}
	keys, err := m.ReadKeys()
	if err != nil {
		return in, out, err
	}
	base := esp.Config{
		Mode: s.Mode(), Suite: suite, Manual: true,
		ESN: s.ESN, ReplayWindow: s.ReplayWindow, NoReplayCheck: s.ReplayWindow == 0,
		Hard:  esp.Lifetime{Packets: s.LifetimePackets, Bytes: s.LifetimeBytes, Time: s.Lifetime},
		Outer: s.Outer, TFC: s.TFC,
		Owner: esp.Owner{Name: s.Name, Peer: s.RemoteEndpoint},
	}
	if s.Encap == EncapUDP {
		base.Encap = esp.Encap{SrcPort: NATPort, DstPort: NATPort}
	}
	in, out = base, base
	in.SPI, in.Direction, in.Src, in.Dst = m.SPIIn, esp.In, s.RemoteEndpoint, s.LocalEndpoint
	in.EncryptionKey, in.IntegrityKey = keys.EncryptionIn, keys.IntegrityIn
	out.SPI, out.Direction, out.Src, out.Dst = m.SPIOut, esp.Out, s.LocalEndpoint, s.RemoteEndpoint
	out.EncryptionKey, out.IntegrityKey = keys.EncryptionOut, keys.IntegrityOut
	return in, out, nil
}

// suite is what the block's algorithms make together.
func (m *Manual) suite(ah bool) (esp.Suite, error) {
	proto := esp.ESP
	if ah {
		proto = esp.AH
	}
	return esp.NewSuite(proto, m.Encryption, m.Integrity)
}
