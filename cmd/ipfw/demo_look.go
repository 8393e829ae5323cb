package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/packet"
)

// look goes through what passed on the cable: it counts, finds the packet that
// carried the request, by opening it, and anything that should not be there.
func (f *sealedFlow) look(frames []frame) {
	sa, err := esp.New(f.keys)
	f.keys.EncryptionKey.Wipe()
	if err != nil {
		f.differ("the keys are not good: %v", err)
		return
	}
	defer sa.Close()
	secrets := [][]byte{[]byte(filesPath), []byte(greeting(filesPort, f.From+":0"))}
	for _, fr := range frames {
		for _, s := range secrets {
			if bytes.Contains(fr, s) {
				f.differ("%q was to be read on the cable", s)
			}
		}
		p, ok := fr.packet()
		switch {
		case !ok || p.Src != keyedAddr && p.Dst != keyedAddr:
			continue
		case p.Protocol == packet.UDP && (p.DstPort == 500 || p.DstPort == 4500):
			f.IKEPackets++
			continue
		case p.Protocol != uint8(esp.ESP):
			f.ClearPackets++
			f.differ("a packet of protocol %d crossed in the clear", p.Protocol)
			continue
		}
		f.ESPPackets++
		if p.SPI != f.keys.SPI {
			continue
		}
		opened, _, fault := sa.Open(bytes.Clone(p.Bytes[:p.Len]), 0)
		if fault != esp.OK {
			f.differ("the key does not open what was on the cable: %s", fault)
			continue
		}
		if f.frame == nil && len(f.Clear) > 0 && bytes.Contains(opened, f.Clear) {
			f.frame, f.SPI, f.Sequence, f.Wire = fr, p.SPI, p.SPISeq, hexBytes(p.Bytes[p.Transport:p.Len])
			if want := sa.SealedLenOf(opened); want != p.Len {
				f.differ("the dry run would say %d bytes on the wire, it was %d", want, p.Len)
			}
		}
	}
	if f.frame == nil {
		f.differ("no packet on the cable holds the request")
	}
}

// count holds the counters of both daemons against the cable.
func (f *sealedFlow) count(client, server *host.Status) {
	f.ClientSealed, f.ClientOpened = client.Queue.Sealed, client.Queue.Opened
	f.ServerSealed, f.ServerOpened = server.Queue.Sealed, server.Queue.Opened
	switch {
	case f.ClientSealed != f.ServerOpened || f.ServerSealed != f.ClientOpened:
		f.differ("the client sealed %d and opened %d, the server opened %d and sealed %d", f.ClientSealed, f.ClientOpened, f.ServerOpened, f.ServerSealed)
	case f.ClientSealed+f.ServerSealed != f.ESPPackets:
		f.differ("the daemons sealed %d packets, the cable carried %d", f.ClientSealed+f.ServerSealed, f.ESPPackets)
	}
	for _, st := range []*host.Status{client, server} {
		if st.SAs != 2 || st.Queue.Unsent > 0 {
			f.differ("a daemon has %d SAs and lost %d packets, want 2 and none", st.SAs, st.Queue.Unsent)
		}
		if n := flowsOf(st, f.Rule); n != 1 {
			f.differ("a daemon counted %d flows for rule %q, want 1", n, f.Rule)
		}
	}
}

func flowsOf(st *host.Status, rule string) (n uint64) {
	for _, r := range st.Rules {
		if r.Name == rule {
			n += r.Flows
		}
	}
	return n
}

// keysOf asks a daemon for the keys of the SA that it receives by: the demo is
// root, and the demo's own.
func keysOf(ctx context.Context, client *host.Client) (c esp.Config, err error) {
	var in *host.SA
	if err := client.SAs(ctx, func(s host.SA) error {
		if s.Direction == "in" {
			in = &s
		}
		return nil
	}); err != nil {
		return c, err
	}
	if in == nil {
		return c, fmt.Errorf("the server has no SA to receive by")
	}
	k, err := client.WiresharkKeys(ctx, "")
	if err != nil {
		return c, err
	}
	for _, row := range k.Rows {
		f, err := csv.NewReader(strings.NewReader(row)).Read()
		if err != nil || len(f) < 8 || f[3] != fmt.Sprintf("%#08x", in.SPI) {
			continue
		}
		key, err := hex.DecodeString(strings.TrimPrefix(f[5], "0x"))
		if err != nil {
			continue
		}
		suite, err := esp.NewSuite(esp.ESP, in.Suite, "")
		if err != nil {
			return c, err
		}
		c = esp.Config{SPI: in.SPI, Direction: esp.In, Mode: esp.Transport, Suite: suite, ESN: in.ESN, EncryptionKey: esp.NewKey(key)}
		clear(key)
		return c, nil
	}
	return c, fmt.Errorf("the server does not give the key of SA %#08x", in.SPI)
}
