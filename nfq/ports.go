package nfq

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// portMark draws the mark that the UDP sockets have and nobody can guess. To
// read one from a socket of others, or from the table, takes CAP_NET_ADMIN.
// While the daemon is dead, a program that has bound the port gets nothing,
// though it may mark its socket (since Linux 5.17 CAP_NET_RAW is enough). It
// must not be what the sockets send with: then it would be on the wire of the
// host, for every other rule to see.
func portMark() (uint32, error) {
	var b [4]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if v := binary.NativeEndian.Uint32(b[:]); v != 0 {
			return v, nil
		}
	}
}

// markMessage is a control message that gives what is sent a mark.
func markMessage(mark uint32) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_SOCKET, unix.SO_MARK
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], mark)
	return b
}

// takePorts takes the UDP ports that a configuration asks for. Where that is not
// possible, because a program of another user was there first or the kernel
// cannot tell our sockets from others, ESP in UDP and IKE come by the queue and
// leave by the raw sockets: slower, and whoever has the port gets nothing.
func (f *Firewall) takePorts(cfg *Config) (bySocket bool, err error) {
	f.portTaken.Store(nil)
	if !cfg.Encapsulated {
		return false, nil
	}
	without := func(why string) (bool, error) {
		f.portTaken.Store(&why)
		f.cfg.Logger.Warn("ESP in UDP and IKE come and go packet by packet, which is slower, and are not given to any other program", slog.String("reason", why))
		return false, nil
	}
	if !f.can.socket {
		return without("this kernel's rules cannot ask for sockets (CONFIG_NFT_SOCKET)")
	}
	sockets := []*udpSocket{f.inject.port4, f.inject.port6}
	if cfg.KeyExchange {
		sockets = append(sockets, f.inject.ike4, f.inject.ike6)
	}
	for _, s := range sockets {
		err := s.bind()
		if errors.Is(err, unix.EADDRINUSE) {
			taken := portTaken(s.port, sockets)
			if !taken.privileged() {
				return without(taken.Error())
			}
			return false, taken
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// portTakenError says who has a UDP port that we need.
type portTakenError struct {
	port    uint16
	uid     int    // -1: nobody was found
	process string // for people
}

// privileged says that it takes privileges to have been there first: it is to
// be made an end of, by whoever has given them.
func (e *portTakenError) privileged() bool { return e.port < 1024 || e.uid <= 0 }

// Error is a sentence.
func (e *portTakenError) Error() string {
	who := "another program"
	if e.uid >= 0 {
		who = fmt.Sprintf("%s of user %d", e.process, e.uid)
	}
	if e.port == portIKE {
		return fmt.Sprintf("UDP port %d is taken by %s, another IKE daemon perhaps: stop it, or remove the ike blocks from the policy", e.port, who)
	}
	return fmt.Sprintf("UDP port %d, which ESP in UDP needs, is taken by %s (an IKE daemon?): stop it", e.port, who)
}

// portTaken finds out who has a port beside us.
func portTaken(port uint16, ours []*udpSocket) *portTakenError {
	e := &portTakenError{port: port, uid: -1}
	mine := make(map[string]bool)
	for _, s := range ours {
		var st unix.Stat_t
		if s.fd >= 0 && unix.Fstat(s.fd, &st) == nil {
			mine[strconv.FormatUint(st.Ino, 10)] = true
		}
	}
	for _, file := range []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, h := range udpHolders(string(text), port) {
			if !mine[h.inode] && (e.uid < 0 || h.uid == 0) {
				e.uid, e.process = h.uid, cmp.Or(inodeOwner(h.inode), "a process that cannot be seen from here")
			}
		}
	}
	return e
}

// udpHolder is a socket of /proc/net/udp.
type udpHolder struct {
	uid   int
	inode string
}

// udpHolders reads who has a port: number, local address, remote address,
// state, queues, timer, retransmissions, uid, timeout, inode.
func udpHolders(text string, port uint16) (all []udpHolder) {
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		c := strings.Fields(s.Text())
		if len(c) < 10 {
			continue
		}
		_, hex, _ := strings.Cut(c[1], ":")
		at, err := strconv.ParseUint(hex, 16, 16)
		uid, bad := strconv.Atoi(c[7])
		if err == nil && bad == nil && uint16(at) == port {
			all = append(all, udpHolder{uid, c[9]})
		}
	}
	return all
}

// ikeArrived hands on an IKE message that has come by the queue, if policy lets
// its datagram in; the kernel is not to give it to anybody.
func (w *worker) ikeArrived(m *message) {
	in := w.in
	in.Arriving, in.Dir, in.Alone, in.Again = false, engine.In, true, in.Packet.DstPort == portNAT
	at := in.Packet.Payload
	if in.Packet.DstPort == portNAT {
		at += marker
	}
	r := w.handler.Handle(&in, &w.out, packet.OK)
	f := w.fw.cfg.IKE
	if r.Verdict != engine.Bypass || f == nil || at > len(m.payload) {
		return
	}
	p := &in.Packet
	f(&Datagram{
		Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort),
		Link: m.inDev, Message: m.payload[at:],
	})
}

// ikeByQueue says that a packet that arrives is for the key exchange, and comes
// by the queue.
func (w *worker) ikeByQueue(p *packet.Packet) bool {
	return p.Protocol == packet.UDP && p.HasPorts && p.DstPort == portIKE && !w.fw.encap.Load()
}
