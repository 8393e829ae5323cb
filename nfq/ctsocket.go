package nfq

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ctSocket asks the kernel's connection tracking. One request at a time.
type ctSocket struct {
	fd  int
	buf []byte
	seq uint32
}

// noCtSocket is one that is not open, with room for answers of so many bytes.
func noCtSocket(room int) ctSocket { return ctSocket{fd: -1, buf: make([]byte, room)} }

func (c *ctSocket) open() (err error) {
	if c.fd, err = netfilterSocket(); err != nil {
		return err
	}
	tv := unix.NsecToTimeval(int64(ctAnswerTime))
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func netfilterSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (c *ctSocket) next() uint32 { c.seq++; return c.seq }

// request sends a request and hands on its answers until the last.
func (c *ctSocket) request(req []byte, yield func(typ uint16, body []byte)) error {
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	if err := unix.Sendto(c.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for b := c.buf[:n]; len(b) > 0; {
			typ, body, rest, ok := splitMessage(b)
			if !ok {
				return errors.New("connection tracking answers what is no message")
			}
			seq := binary.NativeEndian.Uint32(b[8:])
			b = rest
			switch {
			case seq != c.seq: // the rest of an answer that was given up
			case typ == unix.NLMSG_DONE:
				return nil
			case typ == unix.NLMSG_ERROR:
				if len(body) < 4 {
					return errors.New("connection tracking answers a short error")
				}
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return os.NewSyscallError("conntrack", syscall.Errno(errno))
				}
				return nil
			default:
				yield(typ, body)
			}
		}
	}
}

// get gives one connection. None is no error.
func (c *ctSocket) get(name []byte, family uint8, yield func(*connection)) error {
	req := appendCt(nil, msgCtGet, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.next())
	req[unix.SizeofNlMsghdr] = family
	req = append(req, name...)
	var ct connection
	err := c.request(req, func(typ uint16, body []byte) {
		if typ == msgCtNew && ct.parse(body) {
			yield(&ct)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// appendCt begins a request; its length is filled in when it is sent.
func appendCt(b []byte, typ, flags uint16, seq uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return append(b, 0, 0, 0, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
}

func appendAttr32(b []byte, typ uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, sizeofAttr+4)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint32(b, v)
}
