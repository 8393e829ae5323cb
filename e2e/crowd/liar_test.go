package crowd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/ike"
	"golang.org/x/sys/unix"
)

// liars are floods from addresses that the attacker does have: cookies come back,
// and each IKE_SA_INIT that is answered is followed by an IKE_AUTH that proves
// nothing. The first number is of addresses.
var liars = map[string]struct {
	addresses int
	send      func(n int, limit time.Duration) (sent int, err error)
}{
	"garbage-one":  {1, sendGarbage},
	"garbage-many": {4096, sendGarbage},
	"psk-one":      {1, func(n int, d time.Duration) (int, error) { return sendWrongKeys(n, d, false) }},
	"psk-many":     {4096, func(n int, d time.Duration) (int, error) { return sendWrongKeys(n, d, false) }},
	"sign-one":     {1, func(n int, d time.Duration) (int, error) { return sendWrongKeys(n, d, true) }},
	"sign-many":    {4096, func(n int, d time.Duration) (int, error) { return sendWrongKeys(n, d, true) }},
}

// liarAddr is in 10.96.0.0/16, which the attacker has.
func liarAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

// sendGarbage is the cheapest for the attacker: its messages are made once, and
// what stands in IKE_AUTH is random. It computes nothing and remembers nothing.
func sendGarbage(n int, limit time.Duration) (sent int, err error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), "udp4", ":500")
	if err != nil {
		return 0, err
	}
	c := pc.(*net.UDPConn)
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	})
	if err := errors.Join(err, opt); err != nil {
		return 0, err
	}
	to := netip.AddrPortFrom(serverAddr, 500)
	var count atomic.Int64
	send := func(b []byte, from [4]byte) {
		if _, _, err := c.WriteMsgUDPAddrPort(b, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from}), to); err == nil {
			count.Add(1)
		}
	}
	// What comes from the server is answered by what it asks for.
	go func() {
		in, oob, out := make([]byte, 1<<12), make([]byte, 128), make([]byte, 1<<12)
		for {
			k, on, _, _, err := c.ReadMsgUDPAddrPort(in, oob)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			h, data, _, err2 := unix.ParseOneSocketControlMessage(oob[:on])
			if err != nil || err2 != nil || h.Type != unix.IP_PKTINFO || k < 32 || in[18] != 34 {
				continue
			}
			from := [4]byte(data[8:12])
			if binary.BigEndian.Uint64(in[8:]) == 0 && in[16] == 41 { // a cookie, with the header of its payload
				copy(out, message[:28])
				copy(out, in[:8])
				m := copy(out[28:], in[28:k])
				out[28], out[16] = message[16], 41
				binary.BigEndian.PutUint32(out[24:], uint32(len(message)+m))
				send(out[:28+m+copy(out[28+m:], message[28:])], from)
				continue
			}
			const size = 300
			_, _ = rand.Read(out[28:size])
			copy(out, in[:16])
			copy(out[16:], []byte{46, 0x20, 35, 0x08, 0, 0, 0, 1, 0, 0, size >> 8, size & 255})
			copy(out[28:], []byte{35, 0, (size - 28) >> 8, (size - 28) & 255})
			send(out[:size], from)
		}
	}()
	b := append([]byte(nil), message...)
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	spi := binary.BigEndian.Uint64(seed[:])
	began := time.Now()
	for i := 0; time.Since(began) < limit; i++ {
		binary.BigEndian.PutUint64(b, spi+uint64(i)|1<<63)
		send(b, liarAddr(i%n).As4())
	}
	return int(count.Load()), nil
}

// sendWrongKeys goes all the way: its key exchange is right, its pre-shared key
// or its signature is not.
func sendWrongKeys(n int, limit time.Duration, sign bool) (sent int, err error) {
	var peers []*ike.Peer
	again := make(chan string, 1<<14)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	const atOnce = 256
	for i := range max(n, atOnce) {
		p := caller(i, []byte("not the secret of anybody"))
		p.Local, p.Name = liarAddr(i%n), fmt.Sprint("liar", i)
		p.LocalID, _ = ike.ParseIdentity(callerName(i % 10))
		if sign {
			p.PSK, p.Key, p.PublicKeys = nil, key, keyring(key.Public())
		}
		peers = append(peers, p)
	}
	s, err := ike.Listen(ike.ServerConfig{
		Config: ike.Config{Peers: peers, Rand: rand.Reader, Retransmit: ike.Retransmit{First: 500 * time.Millisecond, Factor: 1, Tries: 2}},
		Event: func(e ike.Event) {
			if e.Failure != ike.NoFailure {
				again <- e.Peer
			}
		},
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx, 0); close(done) }()
	defer func() { cancel(); <-done }()
	next, waiting := 0, 0
	for end := time.After(limit); ; {
		for ; waiting < atOnce; waiting++ {
			p := peers[next%len(peers)]
			next++
			var bad error
			if err := s.Call(func(k *ike.Core, now time.Time) (o ike.Output) {
				o, bad = k.Initiate(now, ike.Call{Peer: p.Name, Child: "crowd"})
				return o
			}); err != nil || bad != nil {
				return 0, errors.Join(err, bad)
			}
		}
		select {
		case <-again:
			waiting--
		case <-end:
			return next - waiting, nil
		}
	}
}
