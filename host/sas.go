package host

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ipfw/ipfw/esp"
)

// SA is one live security association: one direction of traffic under one
// key. Its keys are not here.
type SA struct {
	// Name is the ipsec block.
	Name      string `json:"name"`
	Direction string `json:"direction"` // "in" or "out"
	Protocol  string `json:"protocol"`  // "esp" or "ah"
	Mode      string `json:"mode"`      // "transport" or "tunnel"
	SPI       uint32 `json:"spi"`
	Suite     string `json:"suite"`
	// Source and Destination are the addresses of the sealed packets, in the
	// direction of the SA; absent where any will do.
	Source      netip.Addr `json:"source,omitzero"`
	Destination netip.Addr `json:"destination,omitzero"`
	// Ports of the UDP header in front of ESP; absent without one.
	SourcePort      uint16 `json:"source_port,omitempty"`
	DestinationPort uint16 `json:"destination_port,omitempty"`
	// Keys is where they came from: "manual" or "ike".
	Keys string `json:"keys"`
	// Peer is the ike block and RemoteID who the peer has proved to be;
	// absent with keys set by hand.
	Peer     string `json:"peer,omitempty"`
	RemoteID string `json:"remote_id,omitempty"`
	// Local and Remote are the traffic selectors that the peers have agreed
	// on, of this host's side and the peer's; absent with keys set by hand,
	// where the rules say it all.
	Local  []string `json:"local,omitempty"`
	Remote []string `json:"remote,omitempty"`
	// Rules are those of the policy that this SA carries, in order.
	Rules []string `json:"rules"`
	// Replaced says that it only opens, or seals, what is still under way.
	Replaced bool `json:"replaced,omitempty"`

	ESN bool `json:"esn"`
	// ReplayWindow is in packets; 0: replays are not looked for.
	ReplayWindow int `json:"replay_window_packets"`

	// In seconds: since it was made, and since it last carried a packet.
	Age  float64 `json:"age_seconds"`
	Idle float64 `json:"idle_seconds"`
	// Expires is in how many seconds its hard lifetime is over; absent: never.
	Expires float64 `json:"expires_seconds,omitempty"`
	// PacketsLeft and BytesLeft are what the hard lifetime still allows;
	// absent: no limit.
	PacketsLeft *uint64 `json:"packets_left,omitempty"`
	BytesLeft   *uint64 `json:"bytes_left,omitempty"`

	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // in the clear
	// Sequence is the last number sent, or the highest that came.
	Sequence uint64 `json:"sequence"`
	// Replays counts numbers seen before or left of the window,
	// AuthFailures wrong integrity values; Faults all refusals by name.
	Replays      uint64            `json:"replays"`
	AuthFailures uint64            `json:"auth_failures"`
	Faults       map[string]uint64 `json:"faults,omitempty"`

	// PathMTU is what the network has reported, in bytes; absent: nothing.
	PathMTU int `json:"path_mtu,omitempty"`
}

// WiresharkKeys are rows of Wireshark's table "ESP SAs", with which it reads
// what the SAs have sealed. Left says of which it cannot, and why.
type WiresharkKeys struct {
	Rows []string `json:"rows"`
	Left []string `json:"left,omitempty"`
}

// sas gives all SAs, in the order of names, inbound first, the newest last.
func (d *daemon) sas() []SA {
	k := d.keeper
	now, blocks := d.now(), *k.blocks.Load()
	var list []SA
	for s := range k.sad.All() {
		list = append(list, k.describe(s, blocks[s.Owner().Name], now))
	}
	slices.SortStableFunc(list, func(a, b SA) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Direction, b.Direction); c != 0 {
			return c
		}
		return int(b.Age*1e3) - int(a.Age*1e3)
	})
	return list
}

// describe tells what there is to tell of an SA; b is its ipsec block, nil if
// the policy has it no more.
func (k *keeper) describe(s *esp.SA, b *block, now int64) SA {
	c, n := s.Config(), s.Counters()
	out := SA{
		Name: c.Owner.Name, Direction: c.Direction.String(), Protocol: s.Protocol().String(), Mode: c.Mode.String(),
		SPI: c.SPI, Suite: c.Suite.String(), SourcePort: c.Encap.SrcPort, DestinationPort: c.Encap.DstPort,
		Keys: "ike", Rules: []string{}, Replaced: true, ESN: c.ESN,
		Age: time.Duration(now - c.Created).Seconds(), Idle: max(0, time.Duration(now-n.Used).Seconds()),
		Packets: n.Packets, Bytes: n.Bytes, Sequence: n.Seq, PathMTU: s.PathMTU(now),
		Replays: n.Faults[esp.Replay] + n.Faults[esp.TooOld], AuthFailures: n.Faults[esp.Unauthentic],
	}
	if !c.Src.IsUnspecified() {
		out.Source = c.Src
	}
	out.Destination = c.Dst
	if c.Direction == esp.In && !c.NoReplayCheck {
		out.ReplayWindow = c.ReplayWindow
	}
	if c.Manual {
		out.Keys = "manual"
	}
	if x, ok := s.Data().(*pair); ok {
		out.Peer, out.RemoteID = x.Peer, x.RemoteID.String()
		out.Local, out.Remote = texts(x.LocalTS), texts(x.RemoteTS)
	}
	if b != nil {
		out.Rules = append(out.Rules, b.rules...)
		out.Replaced = k.replaced(s, b)
	}
	if c.Hard.Time != 0 {
		out.Expires = max(0, time.Duration(c.Created+int64(c.Hard.Time)-now).Seconds())
	}
	out.PacketsLeft, out.BytesLeft = left(c.Hard.Packets, n.Packets), left(c.Hard.Bytes, n.Bytes)
	for f := esp.Fault(1); int(f) < esp.Faults; f++ {
		if n.Faults[f] > 0 {
			if out.Faults == nil {
				out.Faults = map[string]uint64{}
			}
			out.Faults[f.String()] = n.Faults[f]
		}
	}
	return out
}

// left is what a limit still allows; nil without one.
func left(limit, used uint64) *uint64 {
	if limit == 0 {
		return nil
	}
	n := limit - min(limit, used)
	return &n
}

// serveSAs writes the SAs, one on a line.
func (d *daemon) serveSAs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	buf := bufio.NewWriterSize(w, 32<<10)
	enc := json.NewEncoder(buf)
	for _, s := range d.sas() {
		if enc.Encode(s) != nil {
			return // the caller went away
		}
	}
	buf.Flush()
}

// wiresharkKeys gives the keys of all SAs out, and says so: the control socket
// answers root and the daemon's own user only.
func (d *daemon) wiresharkKeys(form esp.WiresharkForm) WiresharkKeys {
	k := WiresharkKeys{Rows: []string{}}
	for s := range d.keeper.sad.All() {
		row, err := s.WiresharkKeys(form)
		if err != nil {
			k.Left = append(k.Left, err.Error())
			continue
		}
		k.Rows = append(k.Rows, row)
	}
	slices.Sort(k.Rows)
	slices.Sort(k.Left)
	d.ring.add(&Event{Kind: KindKeys, Count: uint64(len(k.Rows)),
		Message: fmt.Sprintf("the keys of %d SAs were asked for over the control socket, and given", len(k.Rows))})
	return k
}
