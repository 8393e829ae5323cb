package host

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// lookup asks the host's resolver, with all that it knows (/etc/hosts, search
// lists, several servers, TCP), for the addresses of a name, and says how long
// the answer holds; 0: nobody said, as with what comes from /etc/hosts.
//
// The resolver is Go's, which keeps the time to live to itself; so its sockets
// are listened to. Where it finds nothing, the one of the C library is asked, if
// there is one, for what else nsswitch names.
func lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	var heard ttls
	own := net.Resolver{PreferGo: true, Dial: heard.dial}
	list, err := own.LookupNetIP(ctx, "ip", name)
	if err == nil {
		return list, heard.least(), nil
	}
	list, other := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if other != nil {
		return nil, 0, err
	}
	return list, 0, nil
}

// ttls are the times to live of the answers that pass through sockets.
type ttls struct {
	mu   sync.Mutex
	some bool
	min  uint32 // seconds
}

// least is the shortest of them; 0: none was heard, or it is 0.
func (t *ttls) least() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Duration(t.min) * time.Second
}

func (t *ttls) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	switch c := c.(type) {
	case *net.UDPConn: // the resolver tells UDP by its being a PacketConn
		return &udpTap{c, t}, err
	case *net.TCPConn:
		return &tcpTap{Conn: c, t: t}, err
	}
	return c, err
}

type udpTap struct {
	*net.UDPConn
	t *ttls
}

// Read is for net.Conn.
func (c *udpTap) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	c.t.hear(b[:n])
	return n, err
}

type tcpTap struct {
	net.Conn
	t   *ttls
	got []byte
}

// Read is for net.Conn. Each message follows its length (RFC 1035 section 4.2.2).
func (c *tcpTap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.got = append(c.got, b[:n]...)
	for len(c.got) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(c.got))
		if len(c.got) < end {
			break
		}
		c.t.hear(c.got[2:end])
		c.got = c.got[end:]
	}
	return n, err
}

// hear reads the times to live of an answer: of the addresses, and of the
// aliases that lead there. What is no answer the resolver will refuse as well.
func (t *ttls) hear(b []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess || p.SkipAllQuestions() != nil {
		return
	}
	for {
		r, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) || err != nil {
			return
		}
		switch r.Type {
		case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME:
			t.mu.Lock()
			if !t.some || r.TTL < t.min {
				t.some, t.min = true, r.TTL
			}
			t.mu.Unlock()
		}
		if p.SkipAnswer() != nil {
			return
		}
	}
}
