package engine

import (
	"net/netip"
	"slices"
	"strings"
)

// AnyPort stands in a Trial for a port that is left open: of a source, what a
// client takes for itself, above what services have (RFC 6335 section 6).
const AnyPort = 50000

// PortCase is an answer that a packet gets with other ports than AnyPort.
type PortCase struct {
	Source bool // of its source; else of its destination
	Ports  PortRange
	Result Result
}

// maxPortCases bounds what OtherPorts asks.
const maxPortCases = 4096

// OtherPorts says with which ports, in place of one that the trial leaves open,
// the rules of e answer otherwise than with AnyPort, lowest first. Of a later
// packet of a flow (Established) it says nothing.
func (t Trial) OtherPorts(e *Engine) ([]PortCase, error) {
	if t.Established || t.Fragment {
		return nil, nil
	}
	var out []PortCase
	for _, source := range []bool{true, false} {
		if source && !t.AnySource || !source && !t.AnyDestination {
			continue
		}
		cases, err := t.otherPorts(e, source)
		if err != nil {
			return nil, err
		}
		out = append(out, cases...)
	}
	return out, nil
}

func (t Trial) otherPorts(e *Engine, source bool) (out []PortCase, err error) {
	ask := func(port uint16) (Result, error) {
		spec := t.Spec
		if source {
			spec.SrcPort = port
		} else {
			spec.DstPort = port
		}
		in, err := t.input(spec, t.Dir)
		if err != nil {
			return Result{}, err
		}
		return e.Ask(&in), nil
	}
	usual, err := ask(AnyPort)
	if err != nil {
		return nil, err
	}
	// The answer changes where a rule's ports begin and behind where they end.
	edges := []int{0, 1 << 16}
	for i := range e.Policy().Rules {
		r := &e.Policy().Rules[i]
		for _, list := range [][]PortRange{r.LocalPorts, r.RemotePorts} {
			for _, p := range list {
				edges = append(edges, int(p.First), int(p.Last)+1)
			}
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	for i := range min(len(edges)-1, maxPortCases) {
		r, err := ask(uint16(edges[i]))
		if err != nil {
			return nil, err
		}
		if r.Rule == usual.Rule {
			continue
		}
		ports := PortRange{uint16(edges[i]), uint16(edges[i+1] - 1)}
		if n := len(out); n > 0 && out[n-1].Result.Rule == r.Rule && out[n-1].Ports.Last+1 == ports.First {
			out[n-1].Ports.Last = ports.Last
			continue
		}
		out = append(out, PortCase{source, ports, r})
	}
	return out, nil
}

// parseOpenEnd reads an end that leaves its port open: "192.0.2.1:any", or, where
// bare says so, "192.0.2.1". ok is false for every other.
func parseOpenEnd(w string, proto uint8, bare bool) (a netip.Addr, ok bool, err error) {
	if !hasPorts(proto) {
		return a, false, nil
	}
	host, port, found := cutPort(w)
	switch {
	case found && port != "any", !found && !bare:
		return a, false, nil
	case !found:
		host = w
	}
	a, err = netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return a, false, nil // with a port it is no address either, and that is told
	}
	a, _, err = plainAddr(a, w)
	return a, true, err
}
