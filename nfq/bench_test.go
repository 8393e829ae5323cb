package nfq

import (
	"io"
	"net"
	"testing"
)

// contestants are the ways from one namespace to the other: without a
// firewall, and with every packet up the queue.
func contestants(b *testing.B, f func(b *testing.B, client, server *testHost)) {
	for _, c := range []struct {
		name string
		cfg  *Config
	}{
		{"none", nil},
		{"batch", &Config{Receiver: Batch}},
		{"batch-whole", &Config{Receiver: Batch, CopyRange: CopyAll}},
		{"callback", &Config{Receiver: Callback}},
	} {
		b.Run(c.name, func(b *testing.B) {
			client, server := pair(b)
			if c.cfg != nil {
				fw := server.start(*c.cfg, pass)
				defer func() {
					s := fw.Stats()
					b.ReportMetric(float64(s.QueueDropped+s.UserDropped)/float64(s.Packets+1), "lost/pkt")
				}()
			}
			f(b, client, server)
		})
	}
}

// BenchmarkTCP is one stream; an operation is 64 KiB.
func BenchmarkTCP(b *testing.B) {
	contestants(b, func(b *testing.B, client, server *testHost) {
		var l net.Listener
		server.try(func() (err error) {
			l, err = net.Listen("tcp4", ":0")
			return err
		})
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			buf := make([]byte, 1<<20)
			for {
				if _, err := c.Read(buf); err != nil {
					c.Write([]byte("x"))
					return
				}
			}
		}()
		c, err := client.dial("tcp", addr4(0, 2), uint16(l.Addr().(*net.TCPAddr).Port), patience)
		if err != nil {
			b.Fatal(err)
		}
		data := make([]byte, 64<<10)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := c.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		c.(*net.TCPConn).CloseWrite()
		io.ReadAll(c)
	})
}

// BenchmarkUDP is one sender as fast as it can; an operation is one datagram
// of 64 bytes that arrived.
func BenchmarkUDP(b *testing.B) {
	contestants(b, func(b *testing.B, client, server *testHost) {
		var u *net.UDPConn
		server.try(func() (err error) {
			u, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7})
			return err
		})
		defer u.Close()
		c, err := client.dial("udp", addr4(0, 2), 7, patience)
		if err != nil {
			b.Fatal(err)
		}
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			data := make([]byte, 64)
			for {
				select {
				case <-stop:
					return
				default:
					c.Write(data)
				}
			}
		}()
		buf := make([]byte, 100)
		for b.Loop() {
			if _, _, err := u.ReadFromUDPAddrPort(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
