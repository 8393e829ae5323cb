package nfq

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Fields of struct __sk_buff, linux/bpf.h.
const skbLen, skbIfindex = 0, 40

const (
	// intakeTries is how often the program tries to get a frame, when other
	// processors get theirs at the same time.
	intakeTries = 4
	// forceWakeup is BPF_RB_FORCE_WAKEUP.
	forceWakeup = 1 << 1
)

// intakeWay is what differs between the two ways in which the kernel calls the
// program: from a rule of the table, and from a hook of its own.
type intakeWay struct {
	typ     ebpf.ProgramType
	license string
	// taken and other are the answers.
	taken, other int32
	// begin finds out whether the packet is one to take, puts its length into r7,
	// and may jump to "another way". link puts the interface's index into r1, copy
	// the packet to r3, r7 bytes, and what is not 0 into r0 if it fails. r6, r8 and
	// r9 are as in intakeProgram from link on, and the program's argument is in r6.
	begin, link, copy asm.Instructions
}

// byRule is the way of a rule with the xtables match "bpf": the rule has looked at
// the packet, and the program answers whether it matches.
func byRule() *intakeWay {
	return &intakeWay{typ: ebpf.SocketFilter, license: "Apache-2.0", taken: 1, other: 0,
		begin: asm.Instructions{asm.LoadMem(asm.R7, asm.R6, skbLen, asm.Word)},
		link:  asm.Instructions{asm.LoadMem(asm.R1, asm.R6, skbIfindex, asm.Word)},
		copy: asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R4, asm.R7),
			asm.FnSkbLoadBytes.Call(),
		}}
}

// intakeProgram copies a packet to the frame at the head of the ring and
// answers that it is taken; also if the ring is full, when the packet is lost. It
// may run on several processors at once:
//
//	r6 argument  r7 packet's length  r8 state  r9 head, then frame
//	for intakeTries times:
//		r9 = head; if r9 - tail >= frames: lost++, answer taken
//		if compare-and-swap(head, r9, r9 + 1): goto copy
//	answer another way
//	copy: frame r9 % frames: interface, length, bytes; then say that it is full
//	if the reader was asleep, and nobody else has woken it: ring the bell
func intakeProgram(w *intakeWay, frames, state, bell int) asm.Instructions {
	prog := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.LoadMapValue(asm.R8, state, 0)}
	prog = append(prog, w.begin...)
	prog = append(prog,
		asm.JGT.Imm(asm.R7, intakeMost, "another way"),
		asm.JLT.Imm(asm.R7, 1, "another way"),
	)
	for range intakeTries {
		prog = append(prog,
			asm.LoadMem(asm.R9, asm.R8, stateHead, asm.DWord),
			asm.LoadMem(asm.R1, asm.R8, stateTail, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.R9),
			asm.Sub.Reg(asm.R2, asm.R1),
			asm.JGE.Imm(asm.R2, intakeFrames, "no frame"),
			asm.Mov.Reg(asm.R0, asm.R9),
			asm.Mov.Reg(asm.R1, asm.R9),
			asm.Add.Imm(asm.R1, 1),
			atomically(asm.CmpXchg, asm.R8, asm.R1, asm.DWord, stateHead), // compares with r0
			asm.JEq.Reg(asm.R0, asm.R9, "copy"),
		)
	}
	prog = append(prog,
		asm.Mov.Imm(asm.R0, w.other).WithSymbol("another way"),
		asm.Return(),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("no frame"),
		atomically(asm.AddAtomic, asm.R8, asm.R1, asm.DWord, stateLost),
		asm.Ja.Label("taken"),

		asm.And.Imm(asm.R9, intakeFrames-1).WithSymbol("copy"),
		asm.StoreMem(asm.RFP, -4, asm.R9, asm.Word),
		asm.LoadMapPtr(asm.R1, frames),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "another way"), // never; the verifier cannot know
		asm.Mov.Reg(asm.R9, asm.R0),
	)
	prog = append(prog, w.link...)
	prog = append(prog,
		asm.StoreMem(asm.R9, frameLink, asm.R1, asm.Word),
		asm.StoreMem(asm.R9, frameLen, asm.R7, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Add.Imm(asm.R3, frameData),
	)
	prog = append(prog, w.copy...)
	return append(prog,
		asm.JEq.Imm(asm.R0, 0, "copied"),
		asm.StoreImm(asm.R9, frameLen, 0, asm.Word), // an empty frame
		asm.Mov.Imm(asm.R1, 1).WithSymbol("copied"),
		atomically(asm.Xchg, asm.R9, asm.R1, asm.Word, frameFull),

		asm.LoadMem(asm.R1, asm.R8, stateAsleep, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "taken"),
		asm.Mov.Imm(asm.R1, 0),
		atomically(asm.Xchg, asm.R8, asm.R1, asm.Word, stateAsleep),
		asm.JEq.Imm(asm.R1, 0, "taken"),
		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, bell),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 8),
		asm.Mov.Imm(asm.R4, forceWakeup),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, w.taken).WithSymbol("taken"),
		asm.Return(),
	)
}

// atomically is op.Mem with the operation also where github.com/cilium/ebpf
// v0.22.0 looks for it: without, all of them would be additions.
func atomically(op asm.AtomicOp, dst, src asm.Register, size asm.Size, offset int16) asm.Instruction {
	i := op.Mem(dst, src, size, offset)
	i.Constant = int64(op >> 8)
	return i
}
