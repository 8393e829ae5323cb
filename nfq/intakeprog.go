package nfq

import "github.com/cilium/ebpf/asm"

// Fields of struct __sk_buff, linux/bpf.h.
const skbLen, skbIfindex = 0, 40

const (
	// intakeTries is how often the program tries to get a frame, when other
	// processors get theirs at the same time.
	intakeTries = 4
	// forceWakeup is BPF_RB_FORCE_WAKEUP.
	forceWakeup = 1 << 1
)

// intakeProgram copies a packet to the frame at the head of the ring and
// answers 1; also if the ring is full, when the packet is lost. It answers 0 if
// the packet is to go another way. It may run on several processors at once:
//
//	r6 packet  r7 its length  r8 state  r9 head, then frame
//	for intakeTries times:
//		r9 = head; if r9 - tail >= frames: lost++, answer 1
//		if compare-and-swap(head, r9, r9 + 1): goto copy
//	answer 0
//	copy: frame r9 % frames: interface, length, bytes; then say that it is full
//	if the reader was asleep, and nobody else has woken it: ring the bell
func intakeProgram(frames, state, bell int) asm.Instructions {
	prog := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, skbLen, asm.Word),
		asm.JGT.Imm(asm.R7, intakeMost, "another way"),
		asm.JLT.Imm(asm.R7, 1, "another way"),
		asm.LoadMapValue(asm.R8, state, 0),
	}
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
	return append(prog,
		asm.Mov.Imm(asm.R0, 0).WithSymbol("another way"),
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
		asm.LoadMem(asm.R1, asm.R6, skbIfindex, asm.Word),
		asm.StoreMem(asm.R9, frameLink, asm.R1, asm.Word),
		asm.StoreMem(asm.R9, frameLen, asm.R7, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Add.Imm(asm.R3, frameData),
		asm.Mov.Reg(asm.R4, asm.R7),
		asm.FnSkbLoadBytes.Call(),
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
		asm.Mov.Imm(asm.R0, 1).WithSymbol("taken"),
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
