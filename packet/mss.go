package packet

// TCP option kinds, RFC 9293 section 3.1.
const (
	optionEnd = 0
	optionNOP = 1
	optionMSS = 2
)

// Segment sizes that a SYN without the option stands for, RFC 9293 section 3.7.1.
const (
	defaultMSS4 = 536
	defaultMSS6 = 1220
)

// MSS gives the maximum segment size that a TCP SYN offers, in bytes of data
// without options (RFC 6691): what its receiver may send. ok is false for any
// other packet, and where its options cannot be read.
func MSS(p *Packet) (mss uint16, ok bool) {
	value, ok := mssOption(p)
	switch {
	case !ok:
		return 0, false
	case value != nil:
		return be.Uint16(value), true
	case p.Version == 6:
		return defaultMSS6, true
	}
	return defaultMSS4, true
}

// ClampMSS lowers the maximum segment size that a TCP SYN offers (RFC 9293
// section 3.7.1) to most, in place, and mends the checksum unless it is still
// open (partial). It reports whether it changed the packet.
func ClampMSS(p *Packet, most uint16, partial bool) bool {
	value, _ := mssOption(p)
	if value == nil || be.Uint16(value) <= most {
		return false
	}
	was := be.Uint16(value)
	be.PutUint16(value, most)
	if !partial {
		odd := (p.Payload-p.Transport-len(value))%2 == 1
		sum := p.Bytes[p.Transport+16:]
		be.PutUint16(sum, updateChecksum(be.Uint16(sum), was, most, odd))
	}
	return true
}

// mssOption gives the options of a SYN from the value of the maximum segment
// size on, nil if it offers none. ok is false for any other packet, and where
// the options cannot be read.
func mssOption(p *Packet) (value []byte, ok bool) {
	if p.Protocol != TCP || p.TCPFlags&SYN == 0 || p.LaterFragment() || p.Payload > len(p.Bytes) {
		return nil, false
	}
	options := p.Bytes[p.Transport+20 : p.Payload]
	for len(options) > 0 && options[0] != optionEnd {
		if options[0] == optionNOP {
			options = options[1:]
			continue
		}
		if len(options) < 2 || int(options[1]) < 2 || int(options[1]) > len(options) {
			return nil, false
		}
		if options[0] == optionMSS && options[1] == 4 {
			return options[2:], true
		}
		options = options[options[1]:]
	}
	return nil, true
}

// updateChecksum mends a checksum for one changed 16-bit value (RFC 1624
// section 3), which may stand at an odd offset.
func updateChecksum(sum, was, is uint16, odd bool) uint16 {
	if odd {
		was, is = was<<8|was>>8, is<<8|is>>8
	}
	x := uint32(^sum) + uint32(^was) + uint32(is)
	x = x>>16 + x&0xffff
	x = x>>16 + x&0xffff
	return ^uint16(x)
}
