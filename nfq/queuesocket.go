package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// queueSocket is the socket of a queue outside Go's poller.
type queueSocket struct{ waiter }

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// takeSocket takes the socket away from Go's poller; conn is closed, also on
// error.
func takeSocket(conn *netlink.Conn, a *awake) (*queueSocket, error) {
	s := &queueSocket{waiter{fd: -1, wake: -1, awake: a}}
	raw, err := conn.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
			err = e
		}
	}
	if err == nil {
		err = s.openWake()
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("queue socket: %w", err), s.close())
	}
	return s, nil
}

// receive fills the ring with what is there.
func (s *queueSocket) receive(ring []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&ring[0])), uintptr(len(ring)), unix.MSG_DONTWAIT, 0, 0)
	if errno == 0 {
		s.got(int(n))
	}
	return int(n), errno
}

func (s *queueSocket) send(b []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	return nil
}

// appendMessage appends a netlink message that asks for no answer.
func appendMessage(b []byte, typ uint16, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	return append(append(b, 0, 0, 0, 0, 0, 0, 0, 0), body...)
}
