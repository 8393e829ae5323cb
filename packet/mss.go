package packet

// TCP option kinds, RFC 9293 section 3.1.
const (
	optionEnd = 0
	optionNOP = 1
	optionMSS = 2
)

// ClampMSS lowers the maximum segment size that a TCP SYN offers (RFC 9293
// section 3.7.1) to most, in place, and mends the checksum unless it is still
// open (partial). It reports whether it changed the packet.
func ClampMSS(p *Packet, most uint16, partial bool) bool {
	if p.Protocol != TCP || p.TCPFlags&SYN == 0 || p.LaterFragment() || p.Payload > len(p.Bytes) {
		return false
	}
	options := p.Bytes[p.Transport+20 : p.Payload]
	for len(options) > 0 && options[0] != optionEnd {
		if options[0] == optionNOP {
			options = options[1:]
			continue
		}
		if len(options) < 2 || int(options[1]) < 2 || int(options[1]) > len(options) {
			return false // not for us to judge
		}
		if options[0] == optionMSS && options[1] == 4 {
			was := be.Uint16(options[2:])
			if was <= most {
				return false
			}
			be.PutUint16(options[2:], most)
			if !partial {
				odd := (len(p.Bytes[p.Transport:p.Payload])-len(options))%2 == 1
				sum := p.Bytes[p.Transport+16:]
				be.PutUint16(sum, updateChecksum(be.Uint16(sum), was, most, odd))
			}
			return true
		}
		options = options[options[1]:]
	}
	return false
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
