package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// intake is how native ESP comes in without a system call for each packet, and
// without a wake-up. A BPF program copies the packet into a ring of frames that the
// kernel shares with us (intakeprog.go), and has it dropped: what it does not
// take, the rules of our table send to a queue. The kernel calls it from a hook
// of its own (intakehook.go), or where it has none, from a rule of the table.
//
//	hook in front of the table, or
//	rule: xtables match "bpf" -- copy --> | frame | frame | frame | ... |  --> Unseal, in place
//	        `--> drop                       head ^               ^ tail
//
// A full ring is a discard, and counted. When the reader sleeps it says so, and
// the program rings a bell: a BPF ring buffer, which is there for poll(2) only.
//
// The memory is there from the first policy that protects on.
type intake struct {
	waiter               // its fd is the bell
	made   chan struct{} // closed when all of it is there
	tried  bool

	maps   [3]*ebpf.Map  // frames, state, bell
	prog   *ebpf.Program // for a rule; nil with hook
	hook   *intakeHook   // nil: the kernel has none
	ns     *os.File      // the network namespace
	frames []byte        // mapped
	state  []byte        // mapped, see the offsets below
	bell   []byte        // mapped: where the reader of the bell stands
	rung   []byte        // mapped: where its writer stands

	pace

	next uint64 // the frame that is read next; tail, before it is said
}

const (
	// intakeFrame is how long a frame is, intakeFrames how many there are, a
	// power of 2: they hold what comes in some milliseconds at full speed.
	intakeFrame  = 2048
	intakeFrames = 4096
	// intakeMost is how long a datagram may be that comes this way: more than
	// Ethernet carries, and less than a frame.
	intakeMost = 1960
	// intakeBatch is how many frames are read before what they held is
	// delivered.
	intakeBatch = 256

	// A frame has a word that says that it is full, one with the interface's
	// index, one with the length, and then the datagram.
	frameFull, frameLink, frameLen, frameData = 0, 4, 8, 16

	// The state: how many packets came, whether the reader sleeps, how many
	// found the ring full, how many were read. Each on a cache line of its own.
	stateHead, stateAsleep, stateLost, stateTail, sizeofState = 0, 64, 128, 192, 256
)

// pace is how fast packets come. While it is high, it is better to read them many
// at once than as soon as there are some: what was sealed as one super-packet
// then becomes one again, and its receiver is woken once.
type pace struct {
	since int64 // nanoseconds, on the clock of the reader's Handler
	n     int   // packets since then
	high  bool
}

const (
	// paceTime is for how long packets are counted, in nanoseconds, paceHigh how
	// many make a high pace: one every 20 µs.
	paceTime = int64(time.Millisecond)
	paceHigh = 50
	// gatherFrames is how many packets the reader waits for then: about one
	// super-packet of TCP. It looks again after gatherPause, gatherTries times at
	// most.
	gatherFrames = 44
	gatherPause  = 40 * time.Microsecond
	gatherTries  = 3
)

// count takes note of n packets that have been read.
func (p *pace) count(n int, now int64) {
	p.n += n
	if d := now - p.since; d >= paceTime {
		p.high = int64(p.n)*paceTime >= paceHigh*d
		p.since, p.n = now, 0
	}
}

// gather lets packets gather while many come.
func (t *intake) gather() {
	if !t.high {
		return
	}
	for range gatherTries {
		if atomic.LoadUint32(t.full(gatherFrames-1)) != 0 {
			return
		}
		pause := unix.Timespec{Nsec: int64(gatherPause)}
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
	}
	if atomic.LoadUint32(t.full(0)) == 0 {
		t.high = false // they have stopped
	}
}

func openIntake(a *awake) (*intake, error) {
	t := &intake{waiter: waiter{fd: -1, wake: -1, awake: a}, made: make(chan struct{})}
	var err error
	if t.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return t, err
	}
	return t, t.openWake()
}

// open makes the ring and the program the first time. It gives errors then, once:
// why the kernel cannot call it from a hook (it is called from rules), and why from
// rules neither, or try says that they take no such program; then there is no
// intake. skip is the index of the device of opened packets.
func (t *intake) open(hooks bool, skip uint32, try func(*ebpf.Program) error) (noHook, noIntake error) {
	if t.tried {
		return nil, nil
	}
	t.tried = true
	if noIntake = t.make(); noIntake == nil && hooks {
		if noHook = t.makeHook(skip); noHook == nil {
			close(t.made)
			return nil, nil
		}
	}
	if noIntake == nil {
		noIntake = t.makeRule()
	}
	if noIntake == nil {
		noIntake = try(t.prog)
	}
	if noIntake != nil {
		return noHook, errors.Join(noIntake, t.unmake())
	}
	close(t.made)
	return noHook, nil
}

// makeHook makes the program for a hook, and tries it there: it takes nothing yet,
// because it knows no address.
func (t *intake) makeHook(skip uint32) (err error) {
	if t.hook, err = openIntakeHook(t.maps[0].FD(), t.maps[1].FD(), t.maps[2].FD(), skip); err != nil {
		return err
	}
	if err = t.hook.attach(t.ns); err == nil {
		err = t.hook.detach()
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("BPF program on a netfilter hook (CONFIG_NETFILTER_BPF_LINK): %w", err), t.hook.close())
		t.hook = nil
	}
	return err
}

func (t *intake) makeRule() (err error) {
	w := byRule()
	if t.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ipfw_intake", Type: w.typ, Instructions: intakeProgram(w, t.maps[0].FD(), t.maps[1].FD(), t.maps[2].FD()), License: w.license,
	}); err != nil {
		return fmt.Errorf("BPF program: %w", err)
	}
	return nil
}

func (t *intake) make() (err error) {
	page := os.Getpagesize()
	for i, spec := range [...]ebpf.MapSpec{
		{Name: "frames", Type: ebpf.Array, KeySize: 4, ValueSize: intakeFrame, MaxEntries: intakeFrames, Flags: unix.BPF_F_MMAPABLE},
		{Name: "state", Type: ebpf.Array, KeySize: 4, ValueSize: sizeofState, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE},
		{Name: "bell", Type: ebpf.RingBuf, MaxEntries: uint32(page)},
	} {
		if t.maps[i], err = ebpf.NewMap(&spec); err != nil {
			return fmt.Errorf("BPF map %s: %w", spec.Name, err)
		}
	}
	frames, state, bell := t.maps[0].FD(), t.maps[1].FD(), t.maps[2].FD()
	for _, m := range []struct {
		to     *[]byte
		fd     int
		at     int64
		n      int
		access int
	}{
		{&t.frames, frames, 0, intakeFrame * intakeFrames, unix.PROT_READ | unix.PROT_WRITE},
		{&t.state, state, 0, page, unix.PROT_READ | unix.PROT_WRITE},
		{&t.bell, bell, 0, page, unix.PROT_READ | unix.PROT_WRITE},
		{&t.rung, bell, int64(page), page, unix.PROT_READ},
	} {
		if *m.to, err = unix.Mmap(m.fd, m.at, m.n, m.access, unix.MAP_SHARED); err != nil {
			return os.NewSyscallError("mmap", err)
		}
	}
	t.fd = bell
	return nil
}

// word64 is a word of the state that the kernel reads or writes too.
func (t *intake) word64(at int) *uint64 { return (*uint64)(unsafe.Pointer(&t.state[at])) }

func (t *intake) asleep() *uint32 { return (*uint32)(unsafe.Pointer(&t.state[stateAsleep])) }

// full is the word of the frame at distance n from the next one that says
// whether there is something in it.
func (t *intake) full(n uint64) *uint32 {
	return (*uint32)(unsafe.Pointer(&t.frames[(t.next+n)%intakeFrames*intakeFrame+frameFull]))
}

// frame gives the packet in the frame at distance n from the next one, if there
// is one, and the interface that it came by.
func (t *intake) frame(n int) (b []byte, link uint32, ok bool) {
	if n >= intakeFrames || atomic.LoadUint32(t.full(uint64(n))) == 0 {
		return nil, 0, false
	}
	f := t.frames[(t.next+uint64(n))%intakeFrames*intakeFrame:][:intakeFrame:intakeFrame]
	size := min(binary.NativeEndian.Uint32(f[frameLen:]), intakeMost)
	return f[frameData:][:size:size], binary.NativeEndian.Uint32(f[frameLink:]), true
}

// release gives n frames back.
func (t *intake) release(n int) {
	for i := range uint64(n) {
		atomic.StoreUint32(t.full(i), 0)
	}
	t.next += uint64(n)
	atomic.StoreUint64(t.word64(stateTail), t.next)
}

// wait returns when there may be something to read.
func (t *intake) wait() {
	if t.rest() {
		return
	}
	atomic.StoreUint32(t.asleep(), 1)
	if atomic.LoadUint32(t.full(0)) == 0 {
		t.sleep()
	}
	atomic.StoreUint32(t.asleep(), 0)
	written := atomic.LoadUint64((*uint64)(unsafe.Pointer(&t.rung[0])))
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&t.bell[0])), written)
}

// lost is how many packets have found the ring full.
func (t *intake) lost() uint64 {
	select {
	case <-t.made:
		return atomic.LoadUint64(t.word64(stateLost))
	default:
		return 0
	}
}

func (t *intake) unmake() error {
	var errs []error
	if t.hook != nil {
		errs = append(errs, t.hook.close())
		t.hook = nil
	}
	for _, m := range []*[]byte{&t.frames, &t.state, &t.bell, &t.rung} {
		if *m != nil {
			errs = append(errs, unix.Munmap(*m))
			*m = nil
		}
	}
	for _, m := range t.maps {
		errs = append(errs, m.Close()) // also without one
	}
	errs = append(errs, t.prog.Close())
	t.maps, t.prog, t.fd = [3]*ebpf.Map{}, nil, -1
	return errors.Join(errs...)
}

func (t *intake) close() error { return errors.Join(t.unmake(), t.waiter.close(), t.ns.Close()) }
