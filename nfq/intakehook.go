package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	bpflink "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// intakeHook is the better of two ways to the intake's program: a hook of its own
// in front of the table (Linux 6.4, CONFIG_NETFILTER_BPF_LINK). The table needs no
// xtables match then, which nft cannot read. What a rule looks at, the program
// does itself: whether the packet is ESP right behind a plain header, and for an
// address of this host.
type intakeHook struct {
	own   *ebpf.Map // addresses of this host; those of IPv4 as ::ffff:a.b.c.d
	prog  *ebpf.Program
	links []bpflink.Link
	known []netip.Addr // what own holds
}

// hookPriority is in front of the chain that takes what is left (priorityRaw), and
// behind the reassembly of fragments. hookPlaces is how many places are tried.
const (
	hookPriority = int32(priorityRaw) - 1
	hookPlaces   = 16
)

// ownMost is how many addresses the program knows; to others ESP goes the long
// way.
const ownMost = 4096

// Where the program keeps what it needs, from the frame pointer down: see
// intakeProgram for -8 to 0.
const (
	stackDynptr = -32 // struct bpf_dynptr, 16 bytes
	stackHeader = -72 // the IP header, 40 bytes
	stackOwn    = -88 // the key of own, 16 bytes
)

// byHook is the way of a hook. t is what the kernel says of its own types, skip the
// index of a device whose packets are not taken.
func byHook(t *kernelTypes, own int, skip uint32) *intakeWay {
	read := func(n int32) asm.Instructions { // the first n bytes of the packet to stackHeader
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, stackHeader),
			asm.Mov.Imm(asm.R2, n),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, stackDynptr),
			asm.Mov.Imm(asm.R4, 0),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnDynptrRead.Call(),
			asm.JNE.Imm(asm.R0, 0, "another way"),
		}
	}
	header := func(to asm.Register, at int16, size asm.Size) asm.Instruction {
		return asm.LoadMem(to, asm.RFP, stackHeader+at, size)
	}
	begin := asm.Instructions{
		asm.LoadMem(asm.R9, asm.R6, 8, asm.DWord), // struct bpf_nf_ctx: state, skb
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackDynptr),
		{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(t.fromSKB)},
		asm.JNE.Imm(asm.R0, 0, "another way"),
	}
	begin = append(begin, read(20)...)
	begin = append(begin,
		header(asm.R1, 0, asm.Byte),
		asm.JNE.Imm(asm.R1, 4<<4|5, "IPv6"),
		header(asm.R1, 9, asm.Byte),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_ESP, "another way"),
		header(asm.R1, 6, asm.Half), // more fragments, and the offset
		asm.And.Imm(asm.R1, int32(binary.NativeEndian.Uint16([]byte{0x3f, 0xff}))),
		asm.JNE.Imm(asm.R1, 0, "another way"),
		asm.StoreImm(asm.RFP, stackOwn, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackOwn+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackOwn+8, 0, asm.Half),
		asm.StoreImm(asm.RFP, stackOwn+10, 0xffff, asm.Half),
		header(asm.R1, 16, asm.Word),
		asm.StoreMem(asm.RFP, stackOwn+12, asm.R1, asm.Word),
		asm.Ja.Label("to whom"),

		asm.RSh.Imm(asm.R1, 4).WithSymbol("IPv6"),
		asm.JNE.Imm(asm.R1, 6, "another way"),
		header(asm.R1, 6, asm.Byte),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_ESP, "another way"),
	)
	begin = append(begin, read(40)...)
	begin = append(begin,
		header(asm.R1, 24, asm.DWord),
		asm.StoreMem(asm.RFP, stackOwn, asm.R1, asm.DWord),
		header(asm.R1, 32, asm.DWord),
		asm.StoreMem(asm.RFP, stackOwn+8, asm.R1, asm.DWord),

		asm.LoadMapPtr(asm.R1, own).WithSymbol("to whom"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackOwn),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "another way"),
	)
	begin = append(begin, t.device()...)
	begin = append(begin,
		asm.JEq.Imm(asm.R1, 0, "another way"),
		asm.JEq.Imm(asm.R1, loopbackIndex, "another way"),
		asm.JEq.Imm(asm.R1, int32(skip), "another way"),
		asm.LoadMem(asm.R7, asm.R9, t.skbLen, asm.Word),
	)
	return &intakeWay{typ: ebpf.Netfilter, license: "Dual MIT/GPL", // the kernel lends functions to nothing else
		taken: int32(nfDrop), other: int32(nfAccept), begin: begin, link: t.device(),
		copy: asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R3),
			asm.Mov.Reg(asm.R2, asm.R7),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, stackDynptr),
			asm.Mov.Imm(asm.R4, 0),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnDynptrRead.Call(),
		}}
}

// loopbackIndex is LOOPBACK_IFINDEX of the kernel: the same in every namespace.
const loopbackIndex = 1

// kernelTypes is what the program has to know of this very kernel's types.
type kernelTypes struct {
	fromSKB                   btf.TypeID // function bpf_dynptr_from_skb
	skbLen, stateIn, devIndex int16      // offsets in sk_buff, nf_hook_state, net_device
}

func readKernelTypes() (*kernelTypes, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("types of the kernel (CONFIG_DEBUG_INFO_BTF): %w", err)
	}
	t := new(kernelTypes)
	var f *btf.Func
	if err := spec.TypeByName("bpf_dynptr_from_skb", &f); err != nil {
		return nil, fmt.Errorf("function bpf_dynptr_from_skb: %w", err)
	}
	if t.fromSKB, err = spec.TypeID(f); err != nil {
		return nil, fmt.Errorf("function bpf_dynptr_from_skb: %w", err)
	}
	for _, m := range []struct {
		of, member string
		at         *int16
	}{{"sk_buff", "len", &t.skbLen}, {"nf_hook_state", "in", &t.stateIn}, {"net_device", "ifindex", &t.devIndex}} {
		var s *btf.Struct
		if err := spec.TypeByName(m.of, &s); err != nil {
			return nil, fmt.Errorf("struct %s: %w", m.of, err)
		}
		at, ok := memberAt(s.Members, m.member)
		if !ok || at > 1<<15-8 {
			return nil, fmt.Errorf("struct %s has no member %s that can be reached", m.of, m.member)
		}
		*m.at = int16(at)
	}
	return t, nil
}

// memberAt gives the offset of a member in bytes, also of one in a part without a
// name.
func memberAt(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := memberAt(inner, name); ok {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}

// device puts into r1 the index of the device that the packet came in by: 0 without
// one. The argument of the program is in r6.
func (t *kernelTypes) device() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, t.stateIn, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, t.devIndex, asm.Word),
	}
}

// openIntakeHook makes the program, with the maps of the intake.
func openIntakeHook(frames, state, bell int, skip uint32) (*intakeHook, error) {
	t, err := readKernelTypes()
	if err != nil {
		return nil, err
	}
	h := new(intakeHook)
	h.own, err = ebpf.NewMap(&ebpf.MapSpec{Name: "own", Type: ebpf.Hash, KeySize: 16, ValueSize: 1, MaxEntries: ownMost})
	if err != nil {
		return nil, fmt.Errorf("BPF map own: %w", err)
	}
	w := byHook(t, h.own.FD(), skip)
	h.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "ipfw_intake", Type: w.typ, AttachType: ebpf.AttachNetfilter,
		Instructions: intakeProgram(w, frames, state, bell), License: w.license})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("BPF program for a hook: %w", err), h.own.Close())
	}
	return h, nil
}

// attach hangs the program in front of the table of a network namespace. It takes
// what is for the addresses that it knows.
func (h *intakeHook) attach(namespace *os.File) error {
	if len(h.links) > 0 {
		return nil
	}
	return within(namespace, func() error {
		for _, pf := range []bpflink.NetfilterProtocolFamily{bpflink.NetfilterProtoIPv4, bpflink.NetfilterProtoIPv6} {
			l, err := attachAt(h.prog, pf)
			if err != nil {
				return err
			}
			h.links = append(h.links, l)
		}
		return nil
	})
}

// attachAt takes the first place that no other BPF program has: two of them cannot
// have one priority.
func attachAt(p *ebpf.Program, pf bpflink.NetfilterProtocolFamily) (l bpflink.Link, err error) {
	for at := hookPriority; at > hookPriority-hookPlaces; at-- {
		l, err = bpflink.AttachNetfilter(bpflink.NetfilterOptions{Program: p, ProtocolFamily: pf,
			Hook: bpflink.NetfilterInetHook(unix.NF_INET_PRE_ROUTING), Priority: at})
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return l, err
}

// detach has all packets go the long way again.
func (h *intakeHook) detach() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	return errors.Join(errs...)
}

// knows tells the program the addresses of this host.
func (h *intakeHook) knows(own []netip.Addr) error {
	var errs []error
	for _, a := range h.known {
		if !slices.Contains(own, a) {
			errs = append(errs, h.own.Delete(a.As16()))
		}
	}
	var known []netip.Addr
	for _, a := range own {
		if len(known) == ownMost || a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		if err := h.own.Put(a.As16(), uint8(1)); err != nil {
			errs = append(errs, err)
			continue
		}
		known = append(known, a)
	}
	h.known = known
	return errors.Join(errs...)
}

func (h *intakeHook) close() error {
	return errors.Join(h.detach(), h.prog.Close(), h.own.Close())
}
