package esp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is everything an SA is made of. What IKE negotiates and what a
// `manual` block says end up here alike.
type Config struct {
	SPI       uint32 // 256 or more: lower ones are reserved (RFC 4303 section 2.1)
	Direction Direction
	Mode      Mode
	Suite     Suite

	// EncryptionKey has the salt of a counter-mode suite at its end, as in
	// IKE key material; see Suite.Keys. New copies what it needs.
	EncryptionKey, IntegrityKey Key
	// Manual says that the keys were set by hand: suites that must not use
	// a nonce twice are refused.
	Manual bool

	// Src and Dst are the addresses of the protected packets' (outer)
	// header, in the direction of the SA. An inbound SA of which Dst is the
	// zero Addr takes packets for any local address. An outbound one in
	// transport mode whose Src is unspecified seals for any of them.
	Src, Dst netip.Addr
	// Encap, when not zero, puts ESP in UDP (RFC 3948).
	Encap Encap
	// OriginalSrc and OriginalDst are the addresses that the peers
	// themselves saw before a NAT changed them (RFC 7296 section 2.23.1).
	// A transport mode SA uses them to mend TCP and UDP checksums (RFC 3948
	// section 3.1.2); leave them zero when there is no NAT.
	OriginalSrc, OriginalDst netip.Addr
	// ThroughNAT says that a NAT may have changed the addresses of packets
	// of which the peer's own are not known, as behind the NAT they cannot
	// be: a transport mode SA makes their checksums anew. The integrity
	// value has shown that they are as they were sent.
	ThroughNAT bool

	ESN bool // 64-bit sequence numbers
	// Sequence is where an SA goes on that was there before, under the same
	// keys set by hand: outbound the last number that may have been sent,
	// inbound the highest that came, below which all count as seen. 0: the SA
	// is new.
	Sequence uint64
	// ReplayWindow is 32 to 8,192 packets; 0 means DefaultWindow.
	ReplayWindow int
	// NoReplayCheck turns anti-replay off, for keys set by hand whose
	// sender may start again from 1 (RFC 4303 section 3.4.3).
	NoReplayCheck bool

	// Soft tells the owner that it is time for another SA, Hard stops this
	// one. Zero fields do not limit.
	Soft, Hard Lifetime
	Created    int64 // nanoseconds, on the clock whose time Seal and Open are told

	Outer Outer // how the outer header of tunnel mode is made
	// TFC, in tunnel mode, pads each inner packet to this many bytes
	// (RFC 4303 section 2.7); longer ones go as they are. 0: no padding.
	TFC int
	// AHAlign8 pads AH on IPv4 to 8 bytes, which Linux does and asks for
	// unless told otherwise; RFC 4302 section 2.6 says 4. Open takes both.
	AHAlign8 bool

	// Owner says what the SA belongs to. Opaque here.
	Owner Owner
	// Holder is set where several peers may have the address of the far end;
	// nil: it tells who that is. Opaque here.
	Holder *Holder
	// Data is for whoever made the SA to find again (SA.Data). Opaque here;
	// its dynamic type must be comparable.
	Data any
}

// Owner ties an SA to what it serves, without pointing there. Outbound SAs are
// found by it.
type Owner struct {
	Name string     // the ipsec block or rule
	Peer netip.Addr // the far end
	ID   uint64     // tells several associations of one block and peer apart; 0 if there is one
}

// Encap is UDP encapsulation: the ports of the UDP header in front of ESP, in
// the direction of the SA. The zero value is none.
type Encap struct{ SrcPort, DstPort uint16 }

// Lifetime limits an SA (RFC 4301 section 4.4.2.1). Zero fields do not limit.
type Lifetime struct {
	Packets uint64
	Bytes   uint64 // of the packets before sealing, after opening
	Time    time.Duration
}

// Outer is how the outer IP header of tunnel mode is made (RFC 4301 section
// 5.1.2). The zero value is what the RFC recommends.
type Outer struct {
	DF DF // IPv4 outer header only
	// DSCP is what the outer header says when SetDSCP; else the inner DSCP
	// is copied.
	DSCP    uint8
	SetDSCP bool
	// NoECN is the compatibility mode of RFC 6040 section 4.3, for a far
	// end that does not propagate congestion marks: the outer header says
	// Not-ECT. Else the inner field is copied.
	NoECN bool
	TTL   uint8 // 0 means 64
	// CopyFlowLabel copies an inner IPv6 flow label to an outer IPv6
	// header; else the label is 0, and tells no flows apart.
	CopyFlowLabel bool
}

// DF says what the outer IPv4 header's don't-fragment flag is (RFC 4301
// section 8.1). An inner IPv6 packet counts as one that has it set.
type DF uint8

// The ways to make DF.
const (
	CopyDF DF = iota
	SetDF
	ClearDF
)

// Check says in one sentence what is wrong with a Config.
func (c *Config) Check() error {
	if err := c.Suite.Check(); err != nil {
		return err
	}
	isESP := c.Suite.Protocol == ESP
	window := c.ReplayWindow
	switch {
	case c.SPI < 256:
		return fmt.Errorf("SPI %d is reserved; use one of 256 or more", c.SPI)
	case c.Direction > Out:
		return fmt.Errorf("direction %d is neither in nor out", c.Direction)
	case c.Mode != Transport && c.Mode != Tunnel:
		return errors.New("the mode must be transport or tunnel")
	case c.Src.Is4In6() || c.Dst.Is4In6() || c.Src.Zone() != "" || c.Dst.Zone() != "":
		return fmt.Errorf("addresses %s and %s must be plain IPv4 or IPv6, without a zone", c.Src, c.Dst)
	case c.Direction == Out && (!c.Src.IsValid() || !c.Dst.IsValid()):
		return errors.New("an outbound SA needs both addresses")
	case c.Src.IsValid() && c.Dst.IsValid() && c.Src.Is4() != c.Dst.Is4():
		return fmt.Errorf("addresses %s and %s are not of one family", c.Src, c.Dst)
	case c.Encap != Encap{} && !isESP:
		return errors.New("ah cannot be encapsulated in UDP (RFC 3948 section 1); use esp")
	case c.Encap != Encap{} && (c.Encap.SrcPort == 0 || c.Encap.DstPort == 0):
		return errors.New("UDP encapsulation needs both ports")
	case window != 0 && (window < MinWindow || window > MaxWindow):
		return fmt.Errorf("replay window %d is outside %d to %d packets", window, MinWindow, MaxWindow)
	case !c.ESN && c.Sequence >= 1<<32:
		return fmt.Errorf("sequence number %d needs 64 bits: use esn", c.Sequence)
	case c.NoReplayCheck && c.ESN:
		return errors.New("64-bit sequence numbers need the replay check (RFC 4303 section 2.2.1)")
	case c.Outer.DSCP > 63 || c.Outer.DF > ClearDF:
		return errors.New("DSCP must be 0 to 63, DF one of copy, set, clear")
	case c.TFC != 0 && (c.TFC < 0 || c.TFC > 65535 || c.Mode != Tunnel || !isESP):
		return errors.New("traffic flow padding is for esp in tunnel mode, up to 65535 bytes")
	case c.OriginalSrc.IsValid() != c.OriginalDst.IsValid():
		return errors.New("original addresses come in pairs")
	case c.OriginalSrc.Is4() != c.OriginalDst.Is4(), c.OriginalSrc.IsValid() && c.Src.IsValid() && c.OriginalSrc.Is4() != c.Src.Is4():
		return fmt.Errorf("original addresses %s and %s are not of the SA's family", c.OriginalSrc, c.OriginalDst)
	}
	if c.Manual {
		return c.Suite.ManualKeys()
	}
	return nil
}
