package main

import (
	"fmt"
	"strings"

	"github.com/ipfw/ipfw/host"
)

// beginSealed draws the two hosts of the second half.
func (s *screen) beginSealed(f *sealedFlow, client, server host.Status) {
	if s.json {
		return
	}
	s.printf("  %s\n\n", s.paint(bold, fmt.Sprintf("ipfw demo: port %d under IPsec, %s, %s", filesPort, f.Mode, f.Suite)))
	box := func(left, cable, right string) { s.printf("  | %-30s %-10s %-30s |\n", left, cable, right) }
	s.printf("  +--------------------------------+        +--------------------------------+\n")
	box("has the keys  "+keyedAddr.String(), "|        |", filesAddr.String())
	box("has none      "+barredAddr.String(), "+--------+", fmt.Sprintf("HTTP on %d, the port of SMB", filesPort))
	box(fmt.Sprintf("ipfw run, process %d", client.PID), "|        |", fmt.Sprintf("ipfw run, process %d", server.PID))
	s.printf("  +--------------------------------+        +--------------------------------+\n\n")
	s.printf("  %s.\n\n", kernelLine(&server.Queue))
	s.printf("%s", s.paint(bold, fmt.Sprintf("  %-32s %-9s %-23s %s\n", "TO "+f.To, "DRY RUN", "NETWORK", "DAEMONS")))
}

// sealedRow shows the request.
func (s *screen) sealedRow(f *sealedFlow) {
	if s.json {
		return
	}
	counted := fmt.Sprintf("sealed %d, opened %d; back: sealed %d, opened %d", f.ClientSealed, f.ServerOpened, f.ServerSealed, f.ClientOpened)
	s.sealedLine("a request from "+f.From, f.Expected, f.Through, f.Answer, brief(f.Took), counted)
}

// refusedRow shows a packet that must not get through.
func (s *screen) refusedRow(r *refusal) {
	if s.json {
		return
	}
	took, expected := "", "" // no dry run has keys
	if r.Took > 0 {
		took, expected = brief(r.Took), "discard"
	}
	s.sealedLine(r.What, expected, r.Through, r.Answer, took, plural(r.Counted, "packet")+" "+r.Reason)
}

func (s *screen) sealedLine(what, verdict string, through bool, answer, took, counted string) {
	color := red
	if through {
		color = green
	}
	s.printf("    %-30s %s %s %s\n", what, s.paint(verdictStyleOf(verdict), verdict)+pad(verdict, 9),
		s.paint(color, answer)+pad(answer, 14)+fmt.Sprintf("%9s", took), counted)
}

// shownBytes is how many bytes of a packet are shown, rowBytes how many in a
// line.
const (
	shownBytes = 64
	rowBytes   = 8
)

// demoEnd is the last line of what `ipfw demo --json` prints.
type demoEnd struct {
	Protected *sealedFlow `json:"protected"`
}

// endSealed shows plaintext beside ciphertext, and sums up.
func (s *screen) endSealed(f *sealedFlow) {
	if s.json {
		s.printJSON(demoEnd{f})
		return
	}
	s.printf("\n")
	if len(f.Wire) > 0 {
		const column = rowBytes*3 + rowBytes + 2
		s.printf("  %s\n", s.paint(bold, fmt.Sprintf("%-*s  %s", column, fmt.Sprintf("written by the client, %d bytes", len(f.Clear)),
			fmt.Sprintf("on the cable: ESP, SPI 0x%08x, number %d, %d bytes", f.SPI, f.Sequence, len(f.Wire)))))
		for at := 0; at < shownBytes; at += rowBytes {
			s.printf("  %s  %s\n", hexRow(f.Clear, at), s.paint(cyan, strings.TrimRight(hexRow(f.Wire, at), " ")))
		}
		s.printf("\n")
	}
	for _, d := range f.Disagree {
		s.printf("    %s\n", s.paint(red, "NO AGREEMENT: "+d))
	}
	if len(f.Disagree) > 0 {
		s.printf("\n")
	} else {
		s.printf("  The hosts agreed on the keys by %s of IKE while the first packet waited.\n", plural(f.IKEPackets, "packet"))
		s.printf("  %s crossed the cable, and nothing of the connection in the clear. The packet shown, opened\n", s.paint(cyan, plural(f.ESPPackets, "ESP packet")))
		s.printf("  with its key, holds what the client wrote. Dry run, cable and both daemons agree.\n\n")
	}
}

// hexRow shows the bytes from at on, in hexadecimal and as text.
func hexRow(b []byte, at int) string {
	var digits, text strings.Builder
	for i := at; i < at+rowBytes; i++ {
		if i >= len(b) {
			digits.WriteString("   ")
			text.WriteByte(' ')
			continue
		}
		fmt.Fprintf(&digits, "%02x ", b[i])
		if c := b[i]; c >= 0x20 && c < 0x7f {
			text.WriteByte(c)
		} else {
			text.WriteByte('.')
		}
	}
	return digits.String() + " " + text.String() + " "
}
